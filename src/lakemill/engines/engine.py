"""The engine seam: where a job runs. An engine reads, scores and commits; what that means is said in the rooms above.

``spark`` is behind it in ``engines/spark/``, ``local`` in ``engines/local/``. An engine raises errors of Lakemill only,
and what it cannot do it refuses before anything runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.relations import Latest, Rows, Scored, Snapshot
from lakemill_udfs.plan import PredictPlan

Own = Mapping[str, str]
"""Which rows of a table are a job's own: fields, as ``metadata.job``, and the value that each must have."""


@dataclass(frozen=True)
class Transaction:
    """Delta's application transaction: a commit whose transaction is in the table already is not made again.

    Args:
        app: Who commits: a job's name and its query or mode.
        version: Grows with each commit of that app.
    """

    app: str
    version: int


MADE_BY = "lakemill.madeBy"
"""Table property: the job whose own the whole table is."""


@dataclass(frozen=True)
class Layout:
    """How a new table is laid out.

    Args:
        partition_by: The columns that make folders.
        stats: The columns that Delta keeps minimum and maximum of; without any, the first 32.
        change_feed: Whether it records its changes.
        properties: Further properties, names and values.
    """

    partition_by: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    change_feed: bool = False
    properties: tuple[tuple[str, str], ...] = ()


PLAIN = Layout()


@dataclass(frozen=True)
class Once:
    """Score rows with the same input once.

    Args:
        key: Columns that tell rows apart.
        earlier: Predictions from which results of the same pipeline version are taken over; None for none.
    """

    key: tuple[str, ...]
    earlier: Rows | None = None


@dataclass(frozen=True)
class Following:
    """What a job follows.

    Args:
        source: The table, as it is now.
        where: SQL predicate; not with ``changes``, which are looked at whole.
        changes: Read the change feed instead of the rows added.
        name: Of the job.
        run_id: Of the run.
        checkpoint: Where progress is kept, in the format of a Structured Streaming checkpoint.
        max_bytes: Of one slice, about; a commit is never split where changes are read.
        every_seconds: How often to look; None ends when all that is there now is done.
        into: The table that the rows will go to, so that the engine can make ready for that meanwhile.
    """

    source: Snapshot
    where: str | None
    changes: bool
    name: str
    run_id: str
    checkpoint: Checkpoint
    max_bytes: int
    every_seconds: float | None = None
    into: str | None = None


@dataclass(frozen=True)
class Slice:
    """A bounded piece of what is new in a source.

    Args:
        batch_id: Its number in the checkpoint.
        rows: Rows added; or all changes, with ``_change_type`` and ``_commit_version``.
        version: Last version of the source that it holds.
        is_snapshot: Whether it is part of the first snapshot, which a new checkpoint starts with.
    """

    batch_id: int
    rows: Rows
    version: int
    is_snapshot: bool


@dataclass(frozen=True)
class Watch:
    """What a follower does beside the slices.

    Args:
        stop: Set when it is to end after the running slice.
        between: Called about every second while nothing is being scored; never at the same time as a slice.
        drain: Called when all is done, again and again while it returns True.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    between: Callable[[], None] = lambda: None
    drain: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Patch:
    """What of a row that is there changes; all else stays as it is, and no row is added.

    Args:
        columns: Columns, whole.
        metadata: Fields of ``metadata``.
        elapsed: For each entry of ``metadata.elapsed_ns``, the place that it has in the row as it is; None for one that
            is new.
    """

    columns: tuple[str, ...]
    metadata: tuple[str, ...]
    elapsed: tuple[int | None, ...]


class Engine(Protocol):
    """Where a job runs."""

    @property
    def name(self) -> str:
        """``spark`` or ``local``."""

    @property
    def slots(self) -> int:
        """Pieces of work that run at once."""

    @property
    def threads(self) -> int:
        """Threads that a model may use in each."""

    def for_images(self) -> AbstractContextManager[Engine]:
        """Give an engine that reads and lays out tables of encoded images as they should be."""

    def snapshot(self, table: str, version: int | str | None = None) -> Snapshot | None:
        """Return a Delta table at a version or timestamp; None if there is no Delta table.

        Raises:
            TableError: ``TABLE_VERSION`` if it has no such version.
        """

    def rows(self, snapshot: Snapshot) -> Rows:
        """Return a table's rows."""

    def given(self, table: pa.Table, pieces: Sequence[int] | None = None) -> Rows:
        """Return rows that the driver holds.

        Args:
            table: The rows.
            pieces: For each row, the piece of work that it belongs to; None for one piece.
        """

    def latest(self, changes: Rows, key: Sequence[str], where: str | None, known: Rows) -> Latest:
        """Return what a source's changes come to: one state for each key.

        Args:
            changes: As ``Slice`` has them.
            key: Columns that tell rows apart.
            where: The predicate of the job; a row that does not fulfil it is not in the source for it.
            known: Rows with the keys that earlier changes left.
        """

    def make(self, table: str, schema: pa.Schema, layout: Layout = PLAIN) -> bool:
        """Make a table unless there is one; return whether it was made. Columns keep their metadata.

        Raises:
            TableError: ``TABLE_NOT_WRITABLE``.
        """

    def set_property(self, table: str, name: str, value: str) -> None:
        """Set a table's property, in a commit of its own."""

    def add_fields(self, table: str, schema: pa.Schema) -> None:
        """Add the columns and structs' fields that a table lacks; earlier rows are null there.

        Raises:
            RunError: ``COMMIT_CONFLICT``.
        """

    def widen(self, table: str, columns: pa.Schema) -> None:
        """Write a table again with wider types of some columns, in one commit.

        Args:
            table: The table.
            columns: Those that change, as they are to be.

        Raises:
            RunError: ``COMMIT_CONFLICT`` if others write to it meanwhile.
        """

    def prepare(self, plan: PredictPlan, source: Snapshot) -> PredictPlan:
        """Make ready for a plan over a source (settings, models and modules where workers find them).

        Returns:
            The plan that workers get.
        """

    def send(self, module: str) -> str | None:
        """Make a user's module importable in workers.

        Returns:
            The archive that holds it there; None if they have it.
        """

    def settings(self, plan: PredictPlan, source: Snapshot) -> list[dict[str, str]]:
        """Return what ``prepare`` would set: ``name``, ``value``, ``reason``."""

    def scored(
        self,
        rows: Rows,
        plan: PredictPlan,
        *,
        group_by: Sequence[str] = (),
        once: Once | None = None,
        into: str | None = None,
        keep: bool = True,
    ) -> AbstractContextManager[Scored]:
        """Run ``predict_batches`` once for each row, and keep the result while the context lasts.

        Args:
            rows: Of the source.
            plan: As ``prepare`` returned it.
            group_by: Score whole groups of these columns at once.
            once: Score equal inputs once.
            into: The table that the rows will go to, so that the engine can make ready for that meanwhile.
            keep: Whether something looks at the rows before they are committed; else ``append`` or ``replace`` may be
                what scores them, and is all that is done with them.
        """

    def follow(self, following: Following, on_slice: Callable[[Slice], None], watch: Watch) -> None:
        """Hand out what is new in the source, slice by slice, and keep progress.

        Raises:
            RunError: ``SOURCE_CHANGED``, ``SOURCE_VERSIONS_GONE``, or what ``on_slice`` raised.
        """

    def append(self, scored: Scored | Rows, table: str, transaction: Transaction | None = None) -> bool:
        """Append rows in one commit; columns and structs' fields that the table lacks are added to it.

        What only the table has is null in the rows.

        Returns:
            Whether a commit was made; not if its transaction was there.
        """

    def replace(
        self, scored: Scored | Rows, table: str, where: str | None, transaction: Transaction | None = None
    ) -> bool:
        """Replace the rows for which ``where`` holds, all if None, in one commit; see ``append``."""

    def overwrite(self, rows: Rows, table: str, made_by: str) -> None:
        """Make a table of these rows alone, in one commit; a new one records its changes, and who made it.

        Args:
            rows: All of its rows; it has their columns at least.
            table: Where to.
            made_by: The job, for the property ``MADE_BY``.
        """

    def merge(
        self,
        scored: Scored | Rows,
        table: str,
        key: Sequence[str],
        transaction: Transaction | None = None,
        *,
        own: Own | None = None,
        gone: Rows | None = None,
        replaces: str | None = None,
        patch: Patch | None = None,
    ) -> bool:
        """Replace the rows with the keys of ``scored``, add the others, in one commit.

        Of a replaced row, columns that only the table has stay as they are, but a prediction's own are null. What
        ``KEPT`` of its ``metadata`` the new row does not say stays too.

        Args:
            scored: Each key at most once.
            table: Where to.
            key: Columns that tell rows apart; null is equal to null.
            transaction: Of the commit.
            own: Other rows of the table are not touched.
            gone: Keys that are taken out.
            replaces: SQL predicate: rows of the table that it holds for, and that ``scored`` has not, are taken out.
            patch: Change this of the rows, and add none.

        Raises:
            TableError: ``KEY_NOT_UNIQUE``.
            RunError: ``COMMIT_CONFLICT``.
        """

    def set_null(self, table: str, field: str, where: str, transaction: Transaction) -> bool:
        """Make the field of a struct, as ``metadata.position``, null in some rows; return whether a commit was made.

        Raises:
            RunError: ``COMMIT_CONFLICT``.
        """

    def delete(self, table: str, where: str, transaction: Transaction | None = None) -> int | None:
        """Delete rows in one commit and return how many; None if no commit was made.

        Raises:
            RunError: ``COMMIT_CONFLICT``.
        """

    def delete_orphans(
        self, table: str, own: Own, source: Rows, key: Sequence[str], transaction: Transaction | None = None
    ) -> int | None:
        """Delete a job's own rows whose key ``source`` has not; see ``delete``."""

    def optimize(self, table: str) -> dict[str, int]:
        """Compact a table: ``files_added``, ``files_removed``, ``version``."""

    def vacuum(self, table: str) -> dict[str, int]:
        """Delete files that no version within the table's retention needs: ``version``."""


def location_of(snapshot: Snapshot) -> str:
    """Return where a table lies, without a look at it where its name says so."""
    return table_names.location(snapshot.table) if table_names.is_path(snapshot.table) else snapshot.location


def opened(engine: Engine, table: str, version: int | str | None = None) -> Snapshot:
    """Return a table that must be there.

    Raises:
        TableError: ``TABLE_NOT_FOUND``, or ``TABLE_VERSION``.
    """
    found = engine.snapshot(table, version)
    if found is None:
        raise table_names.not_found(table)
    return found
