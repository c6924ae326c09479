"""Scoring on this engine: one pass of ``predict_batches`` over files, whose results wait in files for their commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pyarrow as pa

from lakemill.engines.digests import compared
from lakemill.engines.engine import Once
from lakemill.engines.local.groups import predicting_groups
from lakemill.engines.local.noting import Note, predicting
from lakemill.engines.local.rows import LocalRows, Room, of_files
from lakemill.engines.local.staged import rows_of
from lakemill.engines.local.work import MadePiece
from lakemill.engines.local.writing import FileWriter, WrittenFile, discard, joined
from lakemill.engines.relations import KeyFaults
from lakemill.engines.reserved_columns import COMMIT_VERSION
from lakemill.engines.schemas import predictions_schema
from lakemill_udfs.plan import PredictPlan

SCORED_TOGETHER = 65_536
"""Rows read at a time where a model takes as many."""


@dataclass
class LocalScored:
    """Rows that were scored once, in files that wait for their commit.

    Args:
        room: What rows need of their engine.
        schema: Of the rows.
        folder: Where the files are.
        files: The files with the rows.
        rows: How many.
        rows_error: Of those, rows with an error.
        tasks: What each task measured.
        is_taken: Whether a commit made, or may have made, the files part of a table; then they are never removed.
    """

    room: Room
    schema: pa.Schema
    folder: str
    files: list[WrittenFile] = field(default_factory=list)
    rows: int = 0
    rows_error: int = 0
    tasks: tuple[Mapping[str, Any], ...] = ()
    is_taken: bool = False

    def add(self, piece: MadePiece) -> None:
        """Take in what came of a piece."""
        self.rows, self.rows_error = self.rows + piece.rows, self.rows_error + piece.rows_error
        self.tasks += piece.tasks
        self.files += [] if piece.file is None else [piece.file]

    def count(self, batch: pa.RecordBatch) -> None:
        """Take in rows that were written."""
        self.rows += batch.num_rows
        self.rows_error += batch.num_rows - batch["error"].null_count

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Return how many rows have a key that does not tell them apart."""
        return of_files(self.room, self.files, self.schema).key_faults(key)

    def to_arrow(self) -> pa.Table:
        """Bring the rows here."""
        return of_files(self.room, self.files, self.schema).to_arrow()


@dataclass(frozen=True)
class Scoring:
    """How a plan is run.

    Args:
        plan: What workers get.
        room: With the workers that the plan wants.
        folder: Where results are written.
        on_rows: Told of rows done.
    """

    plan: PredictPlan
    room: Room
    folder: str
    on_rows: Callable[[int], None] | None = None

    @contextmanager
    def scored(self, rows: LocalRows, group_by: Sequence[str], once: Once | None) -> Iterator[LocalScored]:
        """Run the inference once for each row, and keep the results until they are committed or not wanted.

        Args:
            rows: Of the source.
            group_by: Score whole groups of these columns at once.
            once: Score equal inputs once.
        """
        source = rows.settled()
        scored = LocalScored(self.room, predictions_schema(self.plan, source.schema), self.folder)
        notes = (Note(COMMIT_VERSION, "source_version"),) if source.has_versions else ()
        try:
            if once is None:
                self._each(scored, source, notes, group_by)
            else:
                self._once(scored, source, notes, once)
            scored.files = joined(scored.files, scored.folder, scored.schema)
            yield scored
        finally:
            if not scored.is_taken:
                discard(scored.files)

    def _each(
        self, scored: LocalScored, source: LocalRows, notes: tuple[Note, ...], group_by: Sequence[str] = ()
    ) -> None:
        columns = list(dict.fromkeys((*self.plan.source_columns, *(name for note in notes for name in note.columns))))
        todo = replace(source.select(columns), room=self.room)
        if group_by:
            todo = todo.dealt(group_by).map(predicting_groups(self.plan, group_by), scored.schema)
        else:
            todo = todo.map(predicting(self.plan, notes), scored.schema)
        rows = min(self.plan.batch_rows, SCORED_TOGETHER)
        for piece in todo.make(scored.folder, batch_rows=rows, least_rows=rows, on_rows=self.on_rows):
            scored.add(piece)

    def _once(self, scored: LocalScored, source: LocalRows, notes: tuple[Note, ...], once: Once) -> None:
        from lakemill.engines.local.once import Inputs, copies_of, known_results  # and Polars, only where it is used

        by = compared(self.plan, source.file_schema)
        note = Note(by.column, "input_sha256", digest=True, beside=by.beside)
        inputs = Inputs.read(self.plan, source, note)
        known = None if once.earlier is None else known_results(inputs, cast(LocalRows, once.earlier))
        todo = inputs.without(known)
        first = LocalScored(self.room, scored.schema, str(self.room.scratch))
        self._each(first, todo.first(), (*notes, note))
        scored.tasks = first.tasks
        with FileWriter(scored.folder, scored.schema) as writer:
            for batch in rows_of(first.files, scored.schema):
                scored.count(writer.write(todo.each(batch)))
            for batch in copies_of(inputs, known, scored.schema) if known is not None else ():
                scored.count(writer.write(batch))
        discard(first.files)
        scored.files = [] if writer.written is None else [writer.written]
