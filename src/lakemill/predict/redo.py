"""Doing work again: rows with errors, a whole run, or everything a job did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.choice import open_engine
from lakemill.engines.sql import sql_text
from lakemill.predict.job import run_job
from lakemill.predict.locks import hold
from lakemill.predict.modes import run_retry
from lakemill.predict.needs import predict_needs
from lakemill.predict.ownership import check_own
from lakemill.predict.progress import checkpoint_of
from lakemill.predict.run import PredictResult, Progress, own_rows
from lakemill_udfs.errors import ConfigError

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession


def retry_errors(
    config: PredictConfig, spark: SparkSession | None = None, *, progress: Progress | None = None, wait: bool = False
) -> PredictResult:
    """Score the rows with errors again, and replace their predictions in one commit.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text for each thing that happens.
        wait: For another run of the job.

    Raises:
        LakemillError: as ``predict_table``.
    """
    return run_job(config, "retry", run_retry, spark, progress=progress, wait=wait)


def undo_run(
    config: PredictConfig, run_id: str, spark: SparkSession | None = None, *, progress: Progress | None = None
) -> int:
    """Delete what a run wrote; the next incremental run scores these rows again.

    What the run had replaced is not restored.

    Args:
        config: The job.
        run_id: As in ``metadata.run_id`` and ``<output>_runs``.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text when it has to wait.

    Returns:
        How many predictions were deleted.

    Raises:
        ConfigError: ``RUN_UNKNOWN`` if the predictions have no rows of this run.
        RunError: ``JOB_RUNNING`` or ``COMMIT_CONFLICT``.
    """
    rows = _delete(config, f" AND metadata.run_id = {sql_text(run_id)}", spark, progress)
    if not rows:
        raise ConfigError(
            "RUN_UNKNOWN",
            f"'{config.output.table}' has no rows of run '{run_id}' of the job '{config.name}'.",
            hint="`lakemill status` lists the last runs.",
        )
    return rows


def reset_job(config: PredictConfig, spark: SparkSession | None = None, *, progress: Progress | None = None) -> int:
    """Delete all of a job's predictions and its progress; the next run starts over.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text when it has to wait.

    Returns:
        How many predictions were deleted.

    Raises:
        RunError: ``JOB_RUNNING`` or ``COMMIT_CONFLICT``.
    """
    return _delete(config, "", spark, progress)


def _delete(config: PredictConfig, condition: str, spark: SparkSession | None, progress: Progress | None) -> int:
    check_own(config, spark)
    engine, own = open_engine(spark, predict_needs(config), config.engine), own_rows(config) + condition
    with hold(config, progress or (lambda _: None)):
        # The checkpoint goes first: without it the next run finds by their key which rows lack a prediction.
        checkpoint_of(config).remove()
        there = [table for table in (config.output.table, config.quarantine.table) if table and engine.snapshot(table)]
        deleted = {table: engine.delete(table, own) for table in there}
    return deleted.get(config.output.table, 0)
