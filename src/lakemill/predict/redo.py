"""Doing work again: rows with errors, a whole run, or everything a job did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.sql import sql_text
from lakemill.predict.job import run_job
from lakemill.predict.locks import hold
from lakemill.predict.run import PredictResult, Progress
from lakemill_udfs.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
    from lakemill.predict.modes import run_retry

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
    from lakemill.engines.spark.session import get_session

    session = spark or get_session(config.name)
    own_rows = f"metadata.job = {sql_text(config.name)}{condition}"

    def delete(table: str) -> int:
        statement = f"DELETE FROM {tables.sql_name(table)} WHERE {own_rows}"  # noqa: S608 -- quoted
        return int(retry_conflicts(lambda: session.sql(statement).collect(), table)[0]["num_affected_rows"])

    with hold(config, progress or (lambda _: None)):
        # The checkpoint goes first: without it the next run finds by their key which rows lack a prediction.
        Checkpoint.of(config).remove()
        try:
            deleted = delete(config.output.table) if tables.exists(session, config.output.table) else 0
            if config.quarantine.table is not None and tables.exists(session, config.quarantine.table):
                delete(config.quarantine.table)
        except SPARK_FAILURES as error:
            raise spark_failure(error) from error
    return deleted
