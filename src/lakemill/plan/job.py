"""The dry run of a predict job: its pipeline, its source and its checkpoint, looked at without scoring anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import Engine, location_of, opened
from lakemill.engines.relations import Snapshot
from lakemill.engines.schemas import ddl, predictions_schema
from lakemill.pipelines.dry_run import SourceColumns, add_probe, describe, resolve_all
from lakemill.pipelines.plan_report import PlanReport
from lakemill.pipelines.resolving import Resolved
from lakemill.predict.commits import check_output
from lakemill.predict.needs import predict_needs
from lakemill.predict.ownership import check_own
from lakemill.predict.preparing import resolve_config
from lakemill.predict.progress import check_identity, checkpoint_of, job_identity
from lakemill.predict.source import kept_rows, passed_columns, source_key, source_problems
from lakemill.predict.waiting_rows import waiting
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.plan import PredictPlan

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession


def plan_job(
    config: PredictConfig,
    spark: SparkSession | None = None,
    *,
    probe: bool = False,
    progress: Callable[[str], None] | None = None,
) -> PlanReport:
    """Return what a predict job would do now, with everything that is wrong with it.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        probe: Also run one batch, and say which dtype and shape each output has.
        progress: Gets a line for each problem that is known before an engine starts.

    Raises:
        RunError: Spark or the storage failed.
    """
    report, is_there = PlanReport(), False
    pipeline = _resolve(config, report)
    with report.noting():
        table_names.check_path(config.source.table)
        is_there = True
    if not is_there:
        return report
    for problem in report.problems:
        (progress or (lambda _: None))(f"[{problem['code']}] {problem['message']} Looking for other problems ...")
    with report.noting():
        check_own(config, spark)
    engine = open_engine(spark, predict_needs(config), config.engine, report.note_engine)
    source: Snapshot | None = None
    with report.noting():
        source = opened(engine, config.source.table, config.source.version)
    if source is None:
        return report
    _look_at_source(config, engine, source, report)
    if pipeline is None:
        return report
    resolved, models = pipeline
    columns = source.schema.names
    plan = describe(
        report,
        resolved,
        models,
        SourceColumns.of(source.schema),
        passthrough=[name for name in passed_columns(config, columns) if name in columns],
        batch_rows=config.engine.batch_rows,
        batch_bytes=config.engine.batch_bytes,
        threads=engine.threads,
        parts=config.output.parts,
    )
    if plan is not None:
        _describe_run(config, engine, source, plan, report)
    if probe and None not in models:
        rows = engine.rows(source)
        add_probe(report, resolved, lambda count: rows.limit(count).to_arrow())
    return report


def _look_at_source(config: PredictConfig, engine: Engine, source: Snapshot, report: PlanReport) -> None:
    for error in source_problems(config, source.schema):
        report.add(error)
    with report.noting():
        kept_rows(config, engine, source)
    with report.noting():
        if source.kind == "delta":
            _check_checkpoint(config, engine, source)
            report.waiting = waiting(engine, config, source)
        elif config.mode != "full" or config.source.version is not None:
            raise table_names.not_delta(source.table, source.kind)


def _resolve(config: PredictConfig, report: PlanReport) -> tuple[Resolved, list[ModelSpec | None]] | None:
    if config.pipeline.uri is None:
        return resolve_all(config.pipeline.declared(), config.registry, report, config.trust)
    with report.noting():
        resolved = resolve_config(config)
        return resolved, list(resolved.models)
    return None


def _check_checkpoint(config: PredictConfig, engine: Engine, source: Snapshot) -> None:
    checkpoint, output = checkpoint_of(config), engine.snapshot(config.output.table)
    known = None if config.mode != "incremental" or checkpoint.damage() else checkpoint.identity()
    if known is not None:
        identity = job_identity(config, source_key(config, source.schema.names), source.id)
        check_identity(known, identity, None if output is None else location_of(output))


def _describe_run(
    config: PredictConfig, engine: Engine, source: Snapshot, plan: PredictPlan, report: PlanReport
) -> None:
    schema = predictions_schema(plan, source.schema)
    report.output_schema = ddl(schema)
    report.settings = engine.settings(plan, source)
    output = engine.snapshot(config.output.table)
    if output is not None:
        with report.noting():
            check_output("output.table", config.output.table, output.schema, schema)
