"""The quarantine table: a copy of each commit's rows with errors, derived from the predictions.

There is no transaction across two tables, so a crash may come between them, and a RESTORE may bring predictions back
whose copies are gone: the next run makes the copies that are not there.
"""

from __future__ import annotations

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, Transaction, opened
from lakemill.engines.relations import Rows
from lakemill.predict.progress import Note
from lakemill.predict.run import FAILED, Run, own_rows, rows_of_batch

COMMIT = ("metadata.run_id", "metadata.query_id", "metadata.batch_id")
"""What tells the rows of one commit from those of another; their copies are made together."""


def write_quarantine(
    engine: Engine, config: PredictConfig, condition: str, transaction: Transaction | None = None
) -> bool:
    """Copy the committed rows with errors into the quarantine table, with a transaction of their own.

    Args:
        engine: Where the job runs.
        config: The job; without ``quarantine.table`` nothing is done.
        condition: SQL that selects the commit's rows in the predictions.
        transaction: Delta's ids.

    Returns:
        Whether copies were made.
    """
    table = config.quarantine.table
    return table is not None and engine.append(_failed(engine, config, condition), table, transaction)


def copy_batch(run: Run, query_id: str | None, batch_id: int, failed: int) -> None:
    """Copy an incremental batch, just committed, into the quarantine table.

    Args:
        run: What it needs.
        query_id: Of the batch.
        batch_id: Its number.
        failed: How many of its rows have an error.
    """
    if run.config.quarantine.table is None:
        return
    rows, transaction = rows_of_batch(query_id, batch_id), _transaction(run, query_id, batch_id)
    if not write_quarantine(run.engine, run.config, rows, transaction) and failed:
        # Its number was copied once: by a driver that does the same, or before the predictions went back to before it.
        _complete(run, rows)


def complete_quarantine(run: Run) -> None:
    """Make the copies that the quarantine lacks, unless nothing can have happened since the job's last commit's.

    Args:
        run: What it needs, before it commits anything.
    """
    checkpoint = run.checkpoint
    if run.config.quarantine.table is None or run.is_new_output or run.replaces_table:
        return
    note, begun = Note.read(checkpoint.identity()), checkpoint.begun()
    end = None if begun is None else checkpoint.position(begun)
    is_whole = begun == checkpoint.last_batch() and note is not None and note.done == end
    if is_whole and note is not None and run.state.is_unchanged_since(note.commit, note.transaction):
        return
    if begun is not None:  # its driver may have stopped before its copies, or be about to make them
        query_id = checkpoint.query_id()
        _complete(run, rows_of_batch(query_id, begun), _transaction(run, query_id, begun))
    _complete(run, own_rows(run.config))


def renew_quarantine(engine: Engine, config: PredictConfig) -> None:
    """Bring the quarantine in line with the predictions, after these went back to an earlier state.

    Args:
        engine: Where the job runs.
        config: The job; without ``quarantine.table`` nothing is done.
    """
    table = config.quarantine.table
    if table is not None and engine.snapshot(table) is not None:
        own = own_rows(config)
        engine.replace(_failed(engine, config, own), table, own)


def _complete(run: Run, condition: str, transaction: Transaction | None = None) -> None:
    """Copy the rows with errors of commits of which the quarantine has no row."""
    engine, config, table = run.engine, run.config, str(run.config.quarantine.table)
    there = engine.snapshot(table)
    lacking = _failed(engine, config, condition, run.state.mark.version)
    if there is not None:
        lacking = lacking.without(engine.rows(there).where(own_rows(config)), COMMIT)
    if lacking.is_empty():
        return
    if not engine.append(lacking, table, transaction) and transaction is not None:
        _complete(run, condition)  # copied once, and the copies are gone


def _failed(engine: Engine, config: PredictConfig, condition: str, version: int | None = None) -> Rows:
    output = opened(engine, config.output.table, version)
    return engine.rows(output).where(condition).where(FAILED)


def _transaction(run: Run, query_id: str | None, batch_id: int) -> Transaction:
    return Transaction(f"{run.config.name}/{query_id}/quarantine", batch_id)
