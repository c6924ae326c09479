"""``predict_table``: Delta to Delta, every source row exactly once, with its result or the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Unpack

from lakemill.config.predict import PredictConfig
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import opened
from lakemill.predict.before_engine import check_before_engine
from lakemill.predict.cascades import saved
from lakemill.predict.commits import now_utc
from lakemill.predict.locks import hold
from lakemill.predict.measures import write_measures
from lakemill.predict.modes import MODES
from lakemill.predict.needs import predict_needs
from lakemill.predict.ownership import check_own
from lakemill.predict.preparing import prepare
from lakemill.predict.run import PredictResult, Progress, Run
from lakemill.predict.short_job import ShortJob, as_config
from lakemill_udfs.errors import ConfigError, LakemillError

if TYPE_CHECKING:
    import pandas as pd

    from lakemill.engines.choice import SparkSession


def predict_table(
    config: PredictConfig | None = None,
    spark: SparkSession | None = None,
    *,
    progress: Progress | None = None,
    wait: bool = False,
    replace_table: bool = False,
    **job: Unpack[ShortJob],
) -> PredictResult:
    """Score a Delta table into a Delta table.

    ``predict_table(source="lake/images", model="models:/digits@production", output="lake/predictions")`` is a whole
    job; a ``PredictConfig`` says the rest.

    ``mode: incremental`` scores what was added since the job's last run, in commits of about
    ``engine.max_bytes_per_trigger``. The others are one commit each, and the next incremental run goes on from what the
    rows say: ``full`` scores everything and replaces the job's own predictions, ``where`` replaces those of
    ``source.where``, and ``missing`` scores what has no prediction of this pipeline's version.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text for each thing that happens.
        wait: While another run of the job goes on, wait instead of stopping with ``JOB_RUNNING``.
        replace_table: Overwrite the output whole, whatever it holds and whoever's it is; ``mode: full`` only.
        **job: ``source``, ``model``, ``output`` and what else ``ShortJob`` has, instead of ``config``.

    Raises:
        ConfigError: the configuration, a table, a model or the set-up does not fit; nothing was scored.
        TooManyErrorsError: a batch had more errors than ``quarantine.max_ratio``; earlier batches are committed.
        RunError: Spark or the storage failed; earlier batches are committed and the next run goes on from there.
            ``JOB_RUNNING`` if the job runs already.
    """
    config = as_config(config, job)
    check_replaces(config, replace_table=replace_table)
    way = MODES[config.mode]
    return run_job(config, config.mode, way, spark, progress=progress, wait=wait, replace_table=replace_table)


def check_replaces(config: PredictConfig, *, replace_table: bool) -> None:
    """Look whether the job's mode can replace a whole table, if it is to.

    Raises:
        ConfigError: ``REPLACE_MODE``.
    """
    if replace_table and config.mode != "full":
        raise ConfigError("REPLACE_MODE", f"the table is replaced by mode: full; mode is '{config.mode}'.")


def run_job(
    config: PredictConfig,
    mode: str,
    way: Callable[[Run], None],
    spark: SparkSession | None = None,
    *,
    progress: Progress | None = None,
    wait: bool = False,
    replace_table: bool = False,
) -> PredictResult:
    """Prepare a run, hold the job's lock while it goes ``way`` through the source, and write down what it did.

    Args:
        config: The job.
        mode: What the run tables call it.
        way: Scores and commits.
        spark: The session.
        progress: Gets a line of text for each thing that happens.
        wait: For another run of the job.
        replace_table: As ``predict_table`` has it.

    Raises:
        LakemillError: as ``predict_table``.
    """
    check_own(config, spark)
    started, began = now_utc(), time.perf_counter()
    tell = progress or (lambda _: None)
    check_before_engine(config)
    with hold(config, tell, wait=wait), ThreadPoolExecutor(1) as side:
        engine = open_engine(spark, predict_needs(config), config.engine, tell)
        run = prepare(config, engine, tell, replaces_table=replace_table)
        run.result.mode = mode
        status: LakemillError | None = None
        try:
            way(run)
            if (sentence := saved(run.result.tasks)) is not None:
                tell(sentence)
            version = side.submit(_version, run)  # while the run is written down
        except LakemillError as error:
            status = error
            raise
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
    check_before_engine(config)
    run = prepare(config, open_engine(spark, predict_needs(config), config.engine), lambda _: None, output=False)
    with run.scored(run.source.rows.limit(rows), anew=True) as scored:
        result: pd.DataFrame = scored.to_arrow().to_pandas()
    return result


def _version(run: Run) -> int:
    return opened(run.engine, run.config.output.table).version


def write_run(run: Run, started: datetime, status: LakemillError | None, code: str | None = None) -> None:
    """Append a row of what ``run.result`` holds to the run table, and its tasks' rows; a failure is logged only."""
    result = run.result
    query_id = run.checkpoint.query_id() if result.mode == "incremental" else None
    write_measures(
        run.engine,
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
