"""Where an incremental run goes on. The rows of the output say it; the checkpoint is a note about them.

While nobody else changed the output since the job's own last commit, the note is right and nothing is looked at.
Otherwise (the table was restored, deleted or made anew, rows were deleted; the checkpoint is lost, damaged, older or
newer than the table) the rows' greatest position is found once, and the checkpoint written anew if it says another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lakemill.config.predict import PredictConfig
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.conditional import TableState
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import opened
from lakemill.engines.marks import Mark, commits_from, mark_of
from lakemill.engines.positions import Position
from lakemill.predict.progress import (
    NOTE,
    Note,
    check_identity,
    check_same_source,
    checkpoint_of,
    source_of,
    source_replaced,
)
from lakemill.predict.quarantine import renew_quarantine
from lakemill.predict.run import POSITION_COLUMNS, Run, own_rows
from lakemill_udfs.errors import RunError
from lakemill_udfs.plan import SourcePosition


@dataclass(frozen=True)
class Truth:
    """What a job's rows in its output say.

    Args:
        position: Up to where they say that the source is scored; None if none of them says so.
        first: The smallest such position.
        tables: Ids of the sources that they are of.
        compare_until: The newest version of the source that rows are of which do not say how far the job is.
        loose_from: The oldest such version.
        rows: How many there are.
    """

    position: Position | None
    first: Position | None
    tables: frozenset[str]
    compare_until: int | None
    loose_from: int | None
    rows: int


def truth_of(run: Run) -> Truth:
    """Read what the rows of the output say, as the job knows the table; a new one has none of the job's."""
    if run.is_new_output and not run.state.transaction:
        return truth_in([])
    output = opened(run.engine, run.config.output.table, run.state.mark.version)
    if run.is_new_output and not output.version:
        return truth_in([])  # as this run made it: nothing is read
    mine = run.engine.rows(output).where(own_rows(run.config))
    return truth_in(mine.tally(POSITION_COLUMNS))


def truth_in(counts: list[dict[str, Any]]) -> Truth:
    """Return what rows say, counted by ``metadata.position`` and ``metadata.source_version``."""
    positions, tables, loose = list[Position](), set[str](), list[int]()
    for count in counts:
        said = count["metadata.position"]
        if said is None or said["version"] is None:
            loose.append(count["metadata.source_version"] or 0)
        else:
            positions.append(Position(said["version"], said["file"], said["snapshot"]))
            tables.add(said["table"])
    rows = sum(count["rows"] for count in counts)
    ends = (max(positions, default=None), min(positions, default=None))
    return Truth(*ends, frozenset(tables), max(loose, default=None), min(loose, default=None), rows)


def done_of(config: PredictConfig, state: TableState, truth: Truth) -> Position | None:
    """Return up to where a job's source is scored: what its note says while that holds, else what the rows say."""
    checkpoint = checkpoint_of(config)
    note = None if checkpoint.damage() else Note.read(checkpoint.identity())
    if note is not None and state.is_unchanged_since(note.commit, note.transaction) and note.done in _ends(checkpoint):
        return note.done
    return truth.position


def check_job(run: Run) -> dict[str, Any] | None:
    """Return what a job's checkpoint says, after a look at whether it is for what the job is now; None without one.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB``, ``SOURCE_REPLACED``.
    """
    checkpoint = run.checkpoint
    if damage := checkpoint.damage():
        run.tell(f"the checkpoint is damaged ({damage}): the predictions say how far the job is")
        return None
    known = checkpoint.identity()
    if known is not None and checkpoint.last_batch() is None and not truth_of(run).rows:
        return None  # nothing is scored yet: the job may become another one
    if known is not None:
        check_identity(known, run.identity, run.state.location)
        note = Note.read(known)
        check_source(run, None if note is None else note.source_commit, None if note is None else note.done)
    return known


def check_table(run: Run) -> None:
    """Refuse a source that is another table than the one that the job has read, as far as its checkpoint says.

    Raises:
        ConfigError: ``SOURCE_REPLACED``.
    """
    known = None if run.checkpoint.damage() else run.checkpoint.identity()
    if known is not None:
        check_same_source(known, run.identity)


def check_source(run: Run, seen: Mark | None, done: Position | None) -> None:
    """Refuse a source whose history is not the one that the job has read, though its id is the same.

    Args:
        run: What it needs.
        seen: A commit that was read.
        done: Up to where it was read.

    Raises:
        ConfigError: ``SOURCE_REPLACED``.
    """
    table, newest = run.config.source.table, run.source.snapshot.version
    read = -1 if done is None else done.version - (not done.is_snapshot and done.index < 0)
    if read > newest:
        raise source_replaced(table, f"its newest version is {newest}, and the job had read version {read}")
    there = None if seen is None else mark_of(run.source.location, seen.version)
    if seen is not None and there is not None and there != seen:
        raise source_replaced(table, f"its version {seen.version} is another one than the job had read")


def resume(run: Run) -> Note:
    """Bring the checkpoint in line with the output's rows, and return where the run goes on.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB``, ``SOURCE_REPLACED``.
    """
    checkpoint, identity, known = run.checkpoint, run.identity, check_job(run)
    note = Note.read(known)
    if note is not None and is_current(run, note) and note.done in _ends(checkpoint):
        return note
    truth = truth_of(run)
    if others := truth.tables - {identity["source_id"]}:
        raise source_replaced(
            run.config.source.table,
            f"it has the id {identity['source_id']}, and predictions of this job are of {', '.join(sorted(others))}",
        )
    check_source(run, None, truth.position)
    _check_loose(run, truth)
    state = run.state
    note = Note(state.mark, state.transaction, truth.position, None, truth.compare_until)
    if known is None or truth.position not in _ends(checkpoint):
        _restart(run, truth)
    write_note(run, note)
    return note


def _check_loose(run: Run, truth: Truth) -> None:
    """Refuse to start anew beside predictions of rows that may have gone since; a job that appends would keep them.

    Raises:
        RunError: ``SOURCE_CHANGED``.
    """
    if truth.position is not None or run.config.source.changes != "append":
        return
    if (version := changed_by(run, truth)) is not None:
        raise RunError(
            "SOURCE_CHANGED",
            f"rows of the source '{run.config.source.table}' were changed or deleted by its version {version}, since "
            "the job scored some of them.",
            hint="source: {changes: upsert} follows changes; mode: full scores the table as it is now.",
        )


def changed_by(run: Run, truth: Truth) -> int | None:
    """Return the first version of the source that changed or deleted rows that the job has scored.

    Up to where it has followed the source there is none: a job that only appends stops at the first one.

    Args:
        run: What it needs.
        truth: What the job's rows say.

    Returns:
        None if there is none, as far as the source's log goes back.
    """
    began = [] if truth.loose_from is None else [truth.loose_from + 1]
    if truth.position is not None:
        began.append(truth.position.version + truth.position.is_snapshot)
    oldest = DeltaLog(run.source.location).oldest_commit()
    if not began or oldest is None:
        return None
    after = commits_from(run.source.location, max(min(began), oldest), "")
    versions = (one.mark.version for one in after if one.has_removed)
    first = next(versions, None)
    return None if first is None or first > run.source.snapshot.version else first


def is_current(run: Run, note: Note) -> bool:
    """Return whether nothing that the job knows of its rows changed since a note."""
    return run.state.is_unchanged_since(note.commit, note.transaction)


def _ends(checkpoint: Checkpoint) -> tuple[Position | None, ...]:
    """Return where the last finished batch of a checkpoint ends, and the one begun after it."""
    done, begun = checkpoint.last_batch(), checkpoint.begun()
    return tuple(None if batch is None else checkpoint.position(batch) for batch in (done, begun))


def _restart(run: Run, truth: Truth) -> None:
    """Make the checkpoint say what the rows say, and the quarantine hold what they have."""
    _rewrite(run, truth)
    renew_quarantine(run.engine, run.config)


def _rewrite(run: Run, truth: Truth) -> None:
    checkpoint = run.checkpoint
    was = checkpoint.last_batch() is not None or checkpoint.identity() is not None
    if truth.position is None:
        checkpoint.remove()
        if was and run.is_new_output:
            run.tell("the predictions that the checkpoint was made with are gone: it starts anew")
        elif was or truth.rows:
            run.tell("no prediction says how far the job is: it starts anew")
        elif not run.is_new_output:
            _tell_of_others(run)
        return
    checkpoint.restart(run.identity, truth.position, run.source.snapshot.id)
    run.tell(f"the predictions say how far the job is: {describe(truth.position)}")


def describe(position: Position) -> str:
    """Return a position in words."""
    if position.index < 0:
        return f"source version {position.version - 1} is scored"
    return f"source version {position.version} is scored up to its file {position.index}"


def _tell_of_others(run: Run) -> None:
    """Say so where the output has rows of other jobs over the same source: the job may have been renamed."""
    rows = run.engine.rows(opened(run.engine, run.config.output.table))
    for count in rows.tally(["metadata.job", "metadata.position"]):
        position = count["metadata.position"] or {}
        if position.get("table") == run.source.snapshot.id:
            run.tell(
                f"'{run.config.output.table}' has predictions of the job '{count['metadata.job']}' over this source, "
                f"none of '{run.config.name}', which scores every row: a renamed job does not go on with the former "
                "one's rows"
            )
            return


def write_note(run: Run, note: Note) -> None:
    """Write down what the checkpoint is for and what the output's rows are like."""
    run.checkpoint.claim(run.identity | {NOTE: note.to_dict()})


def note_source(run: Run) -> None:
    """Write down which table was read, where no checkpoint says it: rows without a position do not."""
    if run.checkpoint.damage() is None and run.checkpoint.identity() is None:
        run.checkpoint.claim(source_of(run.identity))


def whole_position(run: Run) -> SourcePosition:
    """Return the position of rows that are all there are in the source's version."""
    done = Position(run.source.snapshot.version + 1)
    return SourcePosition(run.source.snapshot.id, done.version, done.index, done.is_snapshot)


def note_whole(run: Run) -> None:
    """Write the progress of a job that has a prediction for each row of its source's version.

    Args:
        run: What it needs; its commit is made.
    """
    version = run.source.snapshot.version
    done, seen = Position(version + 1), mark_of(run.source.location, version)
    note = Note(run.state.mark, run.state.transaction, done, seen)
    run.checkpoint.restart(run.identity | {NOTE: note.to_dict()}, done, run.source.snapshot.id)


def moved(note: Note, run: Run, done: Position) -> Note:
    """Return a note after a slice of the source."""
    version = done.version if done.is_snapshot or done.index >= 0 else done.version - 1
    seen = mark_of(run.source.location, version) if done.index < 0 else note.source_commit
    state = run.state
    return replace(note, commit=state.mark, transaction=state.transaction, done=done, source_commit=seen)
