"""Doing work again: rows with errors, a whole run, or everything a job did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.choice import open_engine
from lakemill.engines.conditional import TableState
from lakemill.engines.engine import Engine, Transaction, opened
from lakemill.predict.job import run_job
from lakemill.predict.locks import hold
from lakemill.predict.modes import run_retry
from lakemill.predict.needs import predict_needs
from lakemill.predict.ownership import check_own
from lakemill.predict.progress import checkpoint_of
from lakemill.predict.resuming import truth_in
from lakemill.predict.run import POSITION_COLUMNS, PredictResult, Progress, own_rows, rows_of_run, state_of
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
    ours = f"{own_rows(config)} AND {rows_of_run(run_id)}"
    with _output(config, spark, progress) as (engine, state):
        if state is not None:
            _forget_later(engine, state, config, run_id)
        rows = _delete(engine, state, config, ours)
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
    with _output(config, spark, progress) as (engine, state):
        rows = _delete(engine, state, config, own_rows(config))
        checkpoint_of(config).remove()
    return rows


@contextmanager
def _output(
    config: PredictConfig, spark: SparkSession | None, progress: Progress | None
) -> Iterator[tuple[Engine, TableState | None]]:
    """Hold the job's lock, and give its engine and the state of its output, if there is one."""
    check_own(config, spark)
    engine, table = open_engine(spark, predict_needs(config), config.engine), config.output.table
    with hold(config, progress or (lambda _: None)):
        yield engine, None if engine.snapshot(table) is None else state_of(engine, config)


def _delete(engine: Engine, state: TableState | None, config: PredictConfig, where: str) -> int:
    rows = 0

    def delete(own: Transaction) -> bool:
        nonlocal rows
        done = engine.delete(config.output.table, where, own)
        rows = done or 0
        return done is not None

    if state is not None:
        state.commit(delete, is_needed=False)
    quarantine = config.quarantine.table
    if quarantine is not None and engine.snapshot(quarantine) is not None:
        engine.delete(quarantine, where)
    return rows


def _forget_later(engine: Engine, state: TableState, config: PredictConfig, run_id: str) -> None:
    """Let rows of later batches no longer say how far the job is, where an earlier batch is undone.

    Incremental runs go on before that batch then, and find by their key which rows after it have a prediction.
    """
    own, run = own_rows(config), rows_of_run(run_id)
    rows = engine.rows(opened(engine, state.table)).where(own)
    first = truth_in(rows.where(run).tally(POSITION_COLUMNS)).first
    if first is None:
        return
    version, file = "metadata.position.version", "metadata.position.file"
    later = f"({version} > {first.version} OR ({version} = {first.version} AND {file} >= {first.index}))"
    where = f"{own} AND NOT ({run}) AND {later}"
    if not rows.where(where).is_empty():
        state.commit(lambda own: engine.set_null(state.table, "metadata.position", where, own), is_needed=False)
