"""What is new in a source: one commit for each slice of it, skipped if it was made before a crash.

Batch jobs and streams share it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lakemill.engines.engine import Following, Slice
from lakemill.engines.marks import mark_of
from lakemill.engines.positions import Position
from lakemill.engines.relations import Rows, Scored
from lakemill.predict.commits import commit
from lakemill.predict.keys import check_keys
from lakemill.predict.model_updates import ModelUpdates
from lakemill.predict.moved_columns import check_columns
from lakemill.predict.progress import Note, source_replaced
from lakemill.predict.quarantine import copy_batch
from lakemill.predict.rescore import Rescoring
from lakemill.predict.resuming import check_job, is_current, moved, resume, write_note
from lakemill.predict.run import Committed, Origin, Run
from lakemill.predict.upserts import check_feed, remove_orphans, score_changes
from lakemill_udfs.plan import SourcePosition

if TYPE_CHECKING:
    from lakemill.predict.stream_progress import StreamProgress


def following(run: Run, *, every_seconds: float | None = None) -> Following:
    """Return what a run follows.

    Args:
        run: What it needs.
        every_seconds: How often to look for new rows; None ends when all that is there is done.

    Raises:
        ConfigError: ``FEED_DISABLED``.
    """
    config = run.config
    follows_changes = config.source.changes == "upsert"
    if follows_changes:
        check_feed(run)
    return Following(
        run.source.snapshot,
        None if follows_changes else config.source.where,
        follows_changes,
        config.name,
        run.result.run_id,
        run.checkpoint,
        config.engine.max_bytes_per_trigger,
        every_seconds,
        config.output.table,
    )


def is_up_to_date(run: Run) -> bool:
    """Return whether there is nothing to do for sure, whatever the length of the source's log.

    Starting a stream takes seconds, and more where the log has thousands of commits.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` or ``SOURCE_REPLACED``.
    """
    if run.config.rescore != "none":
        return False
    note, newest = Note.read(check_job(run)), run.source.snapshot.version
    if note is None or note.done != Position(newest + 1) or not is_current(run, note):
        return False
    done = run.checkpoint.last_batch()
    return done is not None and done == run.checkpoint.begun() and run.checkpoint.position(done) == note.done


COMPARED = (
    "mode: full goes on. Some predictions do not say how far the job is (mode: where or an undone run left them), and "
    "their rows are found by the key."
)


class Slices:
    """What happens with each slice of a source.

    Args:
        run: What it needs.
        progress: Measures a stream; None for a batch job.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
        RunError: ``SOURCE_CHANGED`` if a column that the job uses is another one now.
    """

    def __init__(self, run: Run, progress: StreamProgress | None = None) -> None:
        self.run, self.progress = run, progress
        self.note = resume(run)
        check_columns(run, self.note.done)
        self.models, self.rescoring = ModelUpdates(run), Rescoring()
        self.is_compared = False

    def __call__(self, piece: Slice) -> None:
        """Score and commit one slice."""
        self.look_for_models()
        self.look_at_source()
        run, query_id, end = self.run, self.run.checkpoint.query_id(), self._end(piece)
        if self.note.done is not None and end <= self.note.done:
            run.tell(f"batch {piece.batch_id} was committed by the last run already")
            return
        began = time.perf_counter()
        batch = self._score(self._to_do(piece), piece, query_id, end)
        run.result.add(batch, piece.batch_id, piece.version)
        run.tell(
            f"batch {piece.batch_id}: committed {batch.rows} rows, {batch.rows_error} with errors, "
            f"source version {piece.version}{self._measures(piece, batch, time.perf_counter() - began)}"
        )
        self.note = moved(self.note, run, end)
        write_note(run, self.note)
        copy_batch(run, query_id, piece.batch_id, batch.rows_error)

    def look_at_source(self) -> None:
        """Make sure that the source is still the table that was read so far.

        Raises:
            ConfigError: ``SOURCE_REPLACED``.
        """
        seen, location = self.note.source_commit, self.run.source.location
        if seen is None or seen.is_in(location):
            return
        if mark_of(location, seen.version) is None:
            there = self.run.engine.snapshot(self.run.config.source.table)
            if there is not None and there.id == self.run.source.snapshot.id and there.version >= seen.version:
                return  # the log was cleaned up
        raise source_replaced(self.run.config.source.table, f"its version {seen.version} is not the one that was read")

    def look_for_models(self) -> None:
        """Look for new models: before a batch, and while there is none, so that the next one need not wait."""
        self.run = self.models.apply(self.run)

    def rescore(self) -> bool:
        """Score one batch of earlier rows again, if the job wants it; return whether there may be more."""
        return self.rescoring.batch(self.run)

    def _end(self, piece: Slice) -> Position:
        """Return where a slice ends; one of changes holds whole commits."""
        end = self.run.checkpoint.position(piece.batch_id)
        if end is None or (self.run.config.source.changes == "upsert" and not end.is_snapshot):
            return Position(piece.version + 1)
        return end

    def _measures(self, piece: Slice, batch: Committed, seconds: float) -> str:
        if self.progress is None:
            return ""
        before = None if piece.is_snapshot else self.run.checkpoint.offset(piece.batch_id - 1).version
        return ", " + self.progress.line(batch, seconds, before, piece.version)

    def _to_do(self, piece: Slice) -> Rows:
        """Return the rows of a slice that have no prediction by a mode that says nothing of how far the job is."""
        run, source, note = self.run, self.run.config.source, self.note
        # The rest of a first snapshot holds files of all earlier versions.
        first = 0 if note.done is None or note.done.is_snapshot else note.done.version
        if note.compare_until is None or first > note.compare_until:
            return piece.rows
        if source.changes == "append":
            known = run.predictions("metadata.position.version IS NULL")
            if not self.is_compared:
                same = run.source.rows.only(known, run.source.key)
                check_keys(same, run.source.key, source.table, hint=COMPARED)
                self.is_compared = True
            return piece.rows.without(known, run.source.key)
        if note.done is None and source.deleted == "remove":
            run.tell("no prediction says how far the job is: every row is scored again, as any may have changed since")
            remove_orphans(run, piece.version)
        return piece.rows

    def _score(self, rows: Rows, piece: Slice, query_id: str | None, end: Position) -> Committed:
        run, config = self.run, self.run.config
        table = run.source.snapshot.id
        origin: Origin = {
            "query_id": query_id,
            "batch_id": piece.batch_id,
            "source_version": piece.version,
            "position": SourcePosition(table, end.version, end.index, end.is_snapshot),
        }
        if config.source.changes == "upsert":
            return score_changes(run, rows, **origin)

        def write(scored: Scored) -> bool:
            output = config.output.table
            return not scored.is_empty and run.state.commit(lambda own: run.engine.append(scored, output, own))

        return commit(run, rows, write, keep=False, **origin)
