"""Rows that change in the source: their predictions are replaced, or removed where the row is gone.

With a change feed, a slice holds changes; what counts is each key's last state in it. Without one, a column that
differs whenever a row changed takes its place.
"""

from __future__ import annotations

from typing import Unpack

from lakemill.engines import table_names
from lakemill.engines.engine import Transaction, opened
from lakemill.engines.positions import Position
from lakemill.engines.relations import Rows, Scored
from lakemill.predict.commits import commit
from lakemill.predict.keys import check_keys
from lakemill.predict.progress import Note
from lakemill.predict.quarantine import write_quarantine
from lakemill.predict.resuming import check_job, is_current, note_whole
from lakemill.predict.run import Committed, Origin, Run, rows_of_run
from lakemill.predict.source import kept_rows
from lakemill_udfs.errors import ConfigError


def check_feed(run: Run) -> None:
    """Refuse ``changes: upsert`` on a source that does not record its changes.

    Raises:
        ConfigError: ``FEED_DISABLED``.
    """
    snapshot = run.source.snapshot
    if snapshot.properties.get("delta.enableChangeDataFeed") != "true":
        raise ConfigError(
            "FEED_DISABLED",
            f"source.changes: upsert reads the change feed of '{snapshot.table}', which is not on.",
            hint=f"ALTER TABLE {table_names.in_sql(snapshot.table)} SET TBLPROPERTIES "
            "(delta.enableChangeDataFeed = true); or name a source.change_column.",
        )


def score_changes(run: Run, changes: Rows, **origin: Unpack[Origin]) -> Committed:
    """Score each key's last state and merge it into the predictions, in one commit.

    Args:
        run: What it needs.
        changes: A part of the source's change feed, unfiltered.
        **origin: Completes the rows' provenance.

    Raises:
        TableError: ``KEY_NOT_UNIQUE`` also where an earlier batch had the other row; nothing was scored.
        LakemillError: as ``commit`` and ``Engine.merge``.
    """
    key, source = run.source.key, run.config.source
    latest = run.engine.latest(changes, key, source.where, run.predictions())
    rows, gone = latest.rows, latest.gone
    # Of several rows at once, only the source tells what is left: as it is now, so that a mended source goes on.
    there = kept_rows(run.config, run.engine, opened(run.engine, source.table))
    if not (latest.doubtful.is_empty() and gone.only(there, key).is_empty()):
        rows = there.only(latest.keys, key)
        check_keys(rows, key, source.table)
        gone = latest.keys.without(there, key)
    return _merge(run, rows, gone if source.deleted == "remove" else None, **origin)


def _merge(run: Run, rows: Rows, removed: Rows | None, **origin: Unpack[Origin]) -> Committed:
    def write(scored: Scored) -> bool:
        if not scored.rows and (removed is None or removed.is_empty()):
            return True
        output, key = run.config.output.table, run.source.key
        return run.state.commit(
            lambda own: run.engine.merge(scored, output, key, own, own=run.own, gone=removed),
            is_needed=bool(scored.rows),
        )

    return commit(run, rows, write, by_key=True, **origin)


def remove_orphans(run: Run, source_version: int) -> None:
    """Delete the job's predictions whose row is not in the source.

    Args:
        run: What it needs.
        source_version: The source as it was then.
    """
    config, engine = run.config, run.engine
    source = kept_rows(config, engine, opened(engine, config.source.table, source_version))
    removed = 0

    def delete(own: Transaction) -> bool:
        nonlocal removed
        done = engine.delete_orphans(config.output.table, run.own, source, run.source.key, own)
        removed = done or 0
        return done is not None

    run.state.commit(delete, is_needed=False)
    if removed:
        run.tell(f"removed {removed} predictions whose row left the source")


def run_change_column(run: Run) -> None:
    """Score the rows whose key or ``source.change_column`` has no prediction, and replace theirs, in one commit.

    It keeps no state but the source version it was at: what to do is found by comparing the two tables.
    """
    config, engine = run.config, run.engine
    key = run.source.key
    source_version = run.source.snapshot.version
    note = Note.read(check_job(run))
    if note is not None and note.done == Position(source_version + 1) and is_current(run, note):
        return
    source = kept_rows(config, engine, opened(engine, config.source.table, source_version))
    predictions = run.predictions()
    state = tuple(dict.fromkeys((*key, str(config.source.change_column))))
    gone = predictions.select(key).without(source, key) if config.source.deleted == "remove" else None
    changed = source.without(predictions, state)
    check_keys(source.only(changed, key), key, config.source.table)
    batch = _merge(run, changed, gone, source_version=source_version)
    if batch.rows:
        run.result.add(batch, None, source_version)
        run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
        write_quarantine(engine, config, rows_of_run(run.result.run_id))
    note_whole(run)
