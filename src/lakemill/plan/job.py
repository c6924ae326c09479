"""The dry run of a predict job: its pipeline, its source and its checkpoint, looked at without scoring anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.checkpoint import Checkpoint, check_identity, job_identity
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.spark.schemas import result_schema
from lakemill.engines.spark.session import get_session
from lakemill.pipelines.plan_report import PlanReport, SourceColumns, add_probe, arrow_schema, describe, resolve_all
from lakemill.pipelines.planning import task_threads
from lakemill.pipelines.resolving import Resolved
from lakemill.predict.commits import check_output
from lakemill.predict.job import resolve_config
from lakemill.predict.source import passed_columns, source_key, source_problems
from lakemill.predict.waiting_rows import waiting
from lakemill_udfs.models import ModelSpec
from lakemill_udfs.plan import PredictPlan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def plan_job(config: PredictConfig, spark: SparkSession | None = None, *, probe: bool = False) -> PlanReport:
    """Return what a predict job would do now, with everything that is wrong with it.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        probe: Also run one batch, and say which dtype and shape each output has.

    Raises:
        RunError: Spark or the storage failed.
    """
    report = PlanReport()
    pipeline = _resolve(config, report)
    spark = spark or get_session(config.name)
    rows: DataFrame | None = None
    try:
        with report.noting():
            rows = tables.read(spark, config.source.table, config.source.version)
        if rows is None:
            return report
        _check_source(config, rows, report)
        with report.noting():
            _check_checkpoint(config, source_key(config, rows.columns))
            report.waiting = waiting(spark, config, rows)
        if pipeline is None:
            return report
        resolved, models = pipeline
        plan = describe(
            report,
            resolved,
            models,
            SourceColumns.of(arrow_schema(rows.schema)),
            passthrough=[name for name in passed_columns(config, rows.columns) if name in rows.columns],
            batch_rows=config.engine.batch_rows,
            batch_bytes=config.engine.batch_bytes,
            threads=task_threads(spark),
            parts=config.output.parts,
        )
        if plan is not None:
            _describe_run(config, spark, rows, plan, report)
        if probe and None not in models:
            add_probe(report, resolved, lambda count: rows.limit(count).toArrow())
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error
    return report


def _resolve(config: PredictConfig, report: PlanReport) -> tuple[Resolved, list[ModelSpec | None]] | None:
    if config.pipeline.uri is None:
        return resolve_all(config.pipeline.declared(), config.registry, report)
    with report.noting():
        resolved = resolve_config(config)
        return resolved, list(resolved.models)
    return None


def _check_source(config: PredictConfig, rows: DataFrame, report: PlanReport) -> None:
    for problem in source_problems(config, rows.columns):
        report.add(problem)
    with report.noting():
        tables.filtered(rows, config.source.where)


def _check_checkpoint(config: PredictConfig, key: tuple[str, ...]) -> None:
    if config.mode == "incremental":
        known = Checkpoint.of(config).identity()
        if known is not None:
            check_identity(known, job_identity(config, key))


def _describe_run(
    config: PredictConfig, spark: SparkSession, rows: DataFrame, plan: PredictPlan, report: PlanReport
) -> None:
    report.add_schema_and_settings(spark, rows.schema, plan)
    output = tables.find(spark, config.output.table)
    if output is not None and config.mode != "full":
        schema = result_schema(replace(plan, task_metrics=False), rows.schema)
        with report.noting():
            check_output(config.output.table, output.schema, schema)
