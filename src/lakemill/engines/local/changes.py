"""What is new in a Delta table since a position: files that commits added, or all that they changed.

Positions count files as Delta's own stream does, so that either engine goes on where the other stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from lakemill.engines.delta_log import DeltaLog, FileEntry, rows_in
from lakemill.engines.local.features import unsupported
from lakemill.engines.local.tables import DataFile, Snapshot, absolute, open_table
from lakemill.engines.positions import Position
from lakemill.engines.reserved_columns import CHANGE_TYPE, COMMIT_VERSION
from lakemill.engines.source_errors import source_changed, versions_gone

CHANGE_FIELDS = (pa.field(CHANGE_TYPE, pa.string()), pa.field(COMMIT_VERSION, pa.int64()))
"""Columns of a change feed beside the table's."""

Kind = Literal["add", "remove", "cdc"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class NewFiles:
    """A bounded piece of what is new.

    Args:
        files: Files with the new rows; of changes, with ``CHANGE_FIELDS`` as well.
        end: Where it ends.
        version: Last version of the table that it holds.
        is_snapshot: Whether it is part of the first snapshot.
    """

    files: tuple[DataFile, ...]
    end: Position
    version: int
    is_snapshot: bool


@dataclass(frozen=True)
class _Step:
    files: tuple[DataFile, ...]
    end: Position
    version: int
    is_snapshot: bool = False

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass
class Changes:
    """The history of a table.

    Args:
        snapshot: The table as it is now; nothing newer is looked at.
        whole: Read inserts, updates and deletes of each commit as one; else added rows only, where anything else is an
            error.
    """

    snapshot: Snapshot
    whole: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the files' rows."""
        schema = self.snapshot.schema
        if self.whole:
            for column in CHANGE_FIELDS:
                schema = schema.append(column)
        return schema

    def after(self, start: Position | None, max_bytes: int) -> Iterator[NewFiles]:
        """Yield what is new, in pieces that hold at least one file and end once they have this many bytes.

        Args:
            start: What is done; None for nothing: the first pieces are then the table as it is now.
            max_bytes: Of one piece, about; a commit whose changes are read whole is never split.

        Raises:
            RunError: ``SOURCE_CHANGED`` if rows were changed or deleted and only added ones are read;
                ``SOURCE_VERSIONS_GONE`` if a commit that is needed was cleaned up.
        """
        waiting: list[_Step] = []
        for step in self._steps(start):
            if waiting and (step.is_snapshot != waiting[-1].is_snapshot):
                yield _piece(waiting)
                waiting = []
            waiting.append(step)
            if sum(one.size for one in waiting) >= max_bytes:
                yield _piece(waiting)
                waiting = []
        if any(step.files for step in waiting):
            yield _piece(waiting)

    def between(self, start: Position | None, end: Position) -> NewFiles:
        """Return the piece that was begun before and ends there; see ``after``."""
        first = end.version if end.is_snapshot else end.version - 1
        steps = []
        for step in self._steps(start, first):
            if (step.end.version, step.end.index) > (end.version, end.index):
                break
            steps.append(step)
        is_snapshot = start is None or start.is_snapshot
        version = end.version if end.index >= 0 else end.version - 1
        return NewFiles(tuple(file for step in steps for file in step.files), end, version, is_snapshot)

    def _steps(self, start: Position | None, first: int | None = None) -> Iterator[_Step]:
        """Yield files, or whole commits, each with the position at which it is done.

        Args:
            start: What is done.
            first: Version of the first snapshot, if there is no start; None is the newest.
        """
        newest = self.snapshot.version
        if start is None or start.is_snapshot:
            version = start.version if start is not None else newest if first is None else first
            yield from self._snapshot_steps(version, -1 if start is None else start.index)
            start = Position(version + 1)
        for version in range(start.version, newest + 1):
            yield from self._commit_steps(version, start.index if version == start.version else -1)

    def _snapshot_steps(self, version: int, done: int) -> Iterator[_Step]:
        snapshot = self.snapshot
        if version != snapshot.version:
            found = open_table(snapshot.location, version)
            snapshot = found or snapshot
        files = snapshot.files()
        if self.whole:
            files = [_marked(file, version, "insert") for file in files]
        for index, file in enumerate(files):
            is_last = index == len(files) - 1
            end = Position(version + 1) if is_last else Position(version, index, is_snapshot=True)
            if index > done:
                yield _Step((file,), end, version, is_snapshot=True)
        if not files:
            yield _Step((), Position(version + 1), version, is_snapshot=True)

    def _commit_steps(self, version: int, done: int) -> Iterator[_Step]:
        actions = DeltaLog(self.snapshot.location).actions(version)
        if actions is None:
            raise versions_gone(self.snapshot.location)
        changed = {
            kind: [action[kind] for action in actions if kind in action and (kind == "cdc" or _is_change(action[kind]))]
            for kind in KINDS
        }
        if any(entry.get("deletionVector") for entry in (*changed["add"], *changed["remove"])):
            if not self.whole:
                raise source_changed(self.snapshot.location)
            raise unsupported(f"the changes of '{self.snapshot.location}' are in deletion vectors.")
        end = Position(version + 1)
        if self.whole:
            files = [*self._changed_files(version, changed)]
            yield _Step(tuple(files), end, version)
            return
        if changed["remove"]:
            raise source_changed(self.snapshot.location)
        added = [self._file(entry) for entry in changed["add"]]
        for index, file in enumerate(added):
            if index > done:
                yield _Step((file,), end if index == len(added) - 1 else Position(version, index), version)
        if not added:
            yield _Step((), end, version)

    def _changed_files(self, version: int, changed: Mapping[Kind, list[FileEntry]]) -> Iterator[DataFile]:
        if changed["cdc"]:  # what a commit changed within files stands here, and only here
            for entry in changed["cdc"]:
                yield _marked(self._file(entry), version, None)
            return
        for entry in changed["remove"]:
            yield _marked(self._file(entry), version, "delete")
        for entry in changed["add"]:
            yield _marked(self._file(entry), version, "insert")

    def _file(self, entry: FileEntry) -> DataFile:
        """Return the file of an action of the log."""
        schema, values = self.snapshot.schema, entry.get("partitionValues") or {}
        if self.snapshot.partition_columns and not values:
            raise unsupported(
                f"the log of '{self.snapshot.location}' does not say which partition a removed file was of."
            )
        partition = tuple(
            (name, _typed(values.get(name), schema.field(name))) for name in self.snapshot.partition_columns
        )
        path = absolute(self.snapshot.location, entry["path"])
        return DataFile(path, entry.get("size") or 0, rows_in(entry), entry.get("modificationTime") or 0, partition)


def _marked(file: DataFile, version: int, change: str | None) -> DataFile:
    """Return a file whose rows have ``CHANGE_FIELDS``; the change stands in the file if it is None."""
    marks: tuple[tuple[str, object], ...] = ((COMMIT_VERSION, version),)
    if change is not None:
        marks += ((CHANGE_TYPE, change),)
    return DataFile(file.path, file.size, file.rows, file.modified_ms, file.partition + marks, file.dropped)


def _is_change(entry: FileEntry) -> bool:
    """Return whether a file came or went with its rows, not only to another file."""
    return bool(entry.get("dataChange", True))


def _typed(text: str | None, column: pa.Field) -> object:
    """Return a partition's value out of the log's text."""
    return None if text is None or text == "" else pa.scalar(text).cast(column.type).as_py()


def _piece(steps: list[_Step]) -> NewFiles:
    files = tuple(file for step in steps for file in step.files)
    return NewFiles(files, steps[-1].end, steps[-1].version, steps[-1].is_snapshot)
