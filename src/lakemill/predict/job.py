"""``predict_table``: Delta to Delta, every source row exactly once, with its result or the reason why there is none."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.pipelines.resolving import Resolved, resolve, resolve_uri
from lakemill.predict.commits import now_utc, prepare_output
from lakemill.predict.measures import write_measures
from lakemill.predict.run import PredictResult, Progress, Run
from lakemill.predict.source import Source, open_source, passed_columns, tune_scan
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.plan import PredictPlan, Provenance

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

logger = logging.getLogger(__name__)


def predict_table(
    config: PredictConfig, spark: SparkSession | None = None, *, progress: Progress | None = None, wait: bool = False
) -> PredictResult:
    """Score a Delta table into a Delta table.

    ``mode: incremental`` scores what was added since the job's last run, in commits of about
    ``engine.max_bytes_per_trigger``. The others are one commit each and forget how far incremental runs were: ``full``
    scores everything into a new version of the output, ``where`` replaces the predictions of ``source.where``, and
    ``missing`` scores what has no prediction of this pipeline's version.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text for each thing that happens.
        wait: While another run of the job goes on, wait instead of stopping with ``JOB_RUNNING``.

    Raises:
        ConfigError: the configuration, a table, a model or the set-up does not fit; nothing was scored.
        TooManyErrorsError: a batch had more errors than ``quarantine.max_ratio``; earlier batches are committed.
        RunError: Spark or the storage failed; earlier batches are committed and the next run goes on from there.
            ``JOB_RUNNING`` if the job runs already.
    """
    from lakemill.predict.modes import MODES

    return run_job(config, config.mode, MODES[config.mode], spark, progress=progress, wait=wait)


def run_job(
    config: PredictConfig,
    mode: str,
    way: Callable[[Run], None],
    spark: SparkSession | None = None,
    *,
    progress: Progress | None = None,
    wait: bool = False,
) -> PredictResult:
    """Prepare a run, hold the job's lock while it goes ``way`` through the source, and write down what it did.

    Args:
        config: The job.
        mode: What the run tables call it.
        way: Scores and commits.
        spark: The session.
        progress: Gets a line of text for each thing that happens.
        wait: For another run of the job.

    Raises:
        LakemillError: as ``predict_table``.
    """
    from lakemill.predict.locks import hold

    started, began = now_utc(), time.perf_counter()
    tell = progress or (lambda _: None)
    with hold(config, tell, wait=wait), ThreadPoolExecutor(1) as side:
        run = prepare(config, spark, tell)
        run.result.mode = mode
        status: LakemillError | None = None
        try:
            way(run)
            version = side.submit(tables.version, run.spark, config.output.table)  # while the run is written down
        except LakemillError as error:
            status = error
            raise
        except SPARK_FAILURES as error:
            status = spark_failure(error)
            raise status from error
        finally:
            run.result.seconds = time.perf_counter() - began
            if run.result.batches or status:
                write_run(run, started, status)
        run.result.table_version = version.result()
    run.result.seconds = time.perf_counter() - began
    return run.result


def preview(config: PredictConfig, rows: int, spark: SparkSession | None = None) -> pd.DataFrame:
    """Score the first ``rows`` rows and return them; neither the output nor the checkpoint is touched.

    Raises:
        ConfigError: as ``predict_table``.
        RunError: Spark failed.
    """
    run = prepare(config, spark, lambda _: None, output=False)
    try:
        result: pd.DataFrame = run.scored(run.source.rows.limit(rows), anew=True).drop("_task").toPandas()
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error
    return result


def resolve_config(config: PredictConfig) -> Resolved:
    """Return a job's pipeline with its models found.

    Raises:
        ModelError: a model or alias is unknown.
    """
    if config.pipeline.uri is None:
        return resolve(config.pipeline.declared(), config.registry)
    resolved = resolve_uri(config.pipeline.uri, config.registry)
    inside, over = resolved.pipeline, config.pipeline
    pipeline = replace(
        inside,
        checks=inside.checks + over.checks,
        outputs=over.outputs or inside.outputs,
        inputs=inside.inputs + over.tensors,
    )
    return replace(resolved, pipeline=pipeline)


def prepare(config: PredictConfig, spark: SparkSession | None, tell: Progress, *, output: bool = True) -> Run:
    """Find everything, plan, and check what can be checked before anything is scored.

    Raises:
        ConfigError: something does not fit.
    """
    from lakemill.engines.spark.session import get_session, session_with
    from lakemill.engines.spark.shipping import ship

    resolved = resolve_config(config)
    tell(
        f"pipeline {resolved.name or config.name} {resolved.pipeline.version}: "
        + ", ".join(
            f"{model.name} {('version ' + model.version) if model.version else model.sha256[:12]}"
            for model in resolved.models
        )
    )
    base = spark or get_session(config.name)
    try:
        session = session_with(base, {})
        source = open_source(config, session)
        run_id = uuid.uuid4().hex
        plan, schema = plan_for(config, resolved, source, base, run_id)
        tune_scan(session, source.rows.schema, plan)
        plan = ship(session, plan)
        is_new = False
        if output:
            from pyspark.sql.types import StructType

            table_schema = StructType([column for column in schema if column.name != "_task"])
            is_new = prepare_output(base, config.output.table, table_schema, replace=config.mode == "full")
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error
    result = PredictResult(config.name, run_id, config.mode, config.output.table, plan.pipeline.version)
    return Run(config, base, session, source, plan, schema, result, tell, is_new)


def plan_for(
    config: PredictConfig, resolved: Resolved, source: Source, spark: SparkSession, run_id: str
) -> tuple[PredictPlan, StructType]:
    """Return the plan of a run and the schema of what workers return; nothing is shipped yet.

    Raises:
        ConfigError: the pipeline does not fit the source.
    """
    from lakemill.engines.spark.schemas import result_schema, spark_tensors
    from lakemill.pipelines.planning import make_plan, task_threads

    plan = make_plan(
        resolved,
        spark_tensors(source.rows.schema),
        passthrough=passed_columns(config, source.rows.columns),
        batch_rows=config.engine.batch_rows,
        batch_bytes=config.engine.batch_bytes,
        device=config.engine.device,
        threads=task_threads(spark),
        parts=config.output.parts,
        task_metrics=not config.engine.group_by,
        provenance=Provenance(config.name, run_id, pipeline=resolved.name or config.name),
    )
    return plan, result_schema(plan, source.rows.schema)


def write_run(run: Run, started: datetime, status: LakemillError | None, code: str | None = None) -> None:
    """Append a row of what ``run.result`` holds to the run table, and its tasks' rows; a failure is logged only."""
    from lakemill.engines.checkpoint import Checkpoint

    result = run.result
    query_id = Checkpoint.of(run.config).query_id() if result.mode == "incremental" else None
    write_measures(
        run.user_session,
        run.config,
        {
            "run_id": result.run_id,
            "job": result.job,
            "mode": result.mode,
            "query_id": query_id,
            "started": started,
            "seconds": result.seconds,
            "status": "failed" if status else "done",
            "code": status.code if status else code,
            "rows": result.rows,
            "rows_error": result.rows_error,
            "batches": result.batches,
            "source_version": result.source_version,
            "pipeline": run.plan.provenance.pipeline,
            "pipeline_version": result.pipeline_version,
        },
        result.tasks,
    )
