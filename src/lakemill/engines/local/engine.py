"""The local engine: delta-rs and this machine's processors behind ``Engine``."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pyarrow as pa
from deltalake import DeltaTable

from lakemill.engines import table_names
from lakemill.engines.engine import MADE_BY, PLAIN, Following, Layout, Once, Own, Patch, Slice, Transaction, Watch
from lakemill.engines.local import commits
from lakemill.engines.local.able import open_by_path
from lakemill.engines.local.conforming import of_rows
from lakemill.engines.local.following import follow
from lakemill.engines.local.pool import Workers
from lakemill.engines.local.rows import LocalRows, Room, given
from lakemill.engines.local.scoring import LocalScored, Scoring
from lakemill.engines.local.staged import may_be_taken
from lakemill.engines.local.tables import Snapshot as Opened
from lakemill.engines.local.tables import TableFiles
from lakemill.engines.local.upkeep import optimize_table, vacuum_table
from lakemill.engines.local.work import workers_for
from lakemill.engines.local.writing import WrittenFile, discard
from lakemill.engines.pace import Pace
from lakemill.engines.relations import Latest, Rows, Scored, Snapshot
from lakemill.engines.schemas import lacks_fields
from lakemill.engines.sql import all_equal
from lakemill_udfs.errors import TableError
from lakemill_udfs.models.threads import processors
from lakemill_udfs.plan import RESERVED, PredictPlan


@dataclass(frozen=True)
class LocalSnapshot:
    """A Delta table at one version.

    Args:
        table: Its name.
        opened: As delta-rs reads it.
    """

    table: str
    opened: Opened
    kind: str = "delta"

    @property
    def schema(self) -> pa.Schema:
        """Its columns, with their metadata."""
        return pa.schema([of_rows(field) for field in self.opened.schema])

    @property
    def version(self) -> int:
        """Its version."""
        return self.opened.version

    @property
    def id(self) -> str:
        """Delta's id of the table."""
        return self.opened.id

    @property
    def location(self) -> str:
        """Its absolute path or URI."""
        return self.opened.location

    @property
    def properties(self) -> Mapping[str, str]:
        """Delta's table properties."""
        return {name: value for name, value in self.opened.properties.items() if value is not None}

    @property
    def partition_by(self) -> tuple[str, ...]:
        """The columns that make its folders."""
        return self.opened.partition_columns

    @property
    def size(self) -> tuple[int, int]:
        """How many files it has, and their bytes."""
        files = self.opened.files()
        return len(files), sum(file.size for file in files)


@dataclass
class LocalEngine:
    """Runs jobs in this process and in workers of this machine.

    Args:
        workers: How many, and threads or processes, for work that has no plan.
        forced: ``threads`` or ``processes`` for every plan; None chooses by what the plan does.
        on_rows: Told of rows done.
        tell: Gets a line every few seconds of long work.
    """

    workers: Workers = field(default_factory=lambda: Workers("threads", processors(), 1))
    forced: str | None = None
    on_rows: Callable[[int], None] | None = None
    tell: Callable[[str], None] | None = None
    name: str = "local"
    _scratch: Path | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was kept on the way."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def room(self) -> Room:
        """What rows need of this engine."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="lakemill-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        return Room(self.workers, self._scratch)

    @property
    def slots(self) -> int:
        """Pieces of work that run at once."""
        return self.workers.count

    @property
    def threads(self) -> int:
        """Threads that a model may use in each."""
        return self.workers.threads

    @contextmanager
    def for_images(self) -> Iterator[LocalEngine]:
        """Give an engine for tables of encoded images: this one, which writes blobs as they are anyway."""
        yield self

    def snapshot(self, table: str, version: int | str | None = None) -> LocalSnapshot | None:
        """Return a Delta table; see ``Engine.snapshot``."""
        opened = open_by_path(table, version)
        return None if opened is None else LocalSnapshot(table, opened)

    def rows(self, snapshot: Snapshot) -> LocalRows:
        """Return a table's rows."""
        opened = cast(LocalSnapshot, snapshot).opened
        return LocalRows(self.room, TableFiles(opened), opened.schema)

    def given(self, table: pa.Table, pieces: Sequence[int] | None = None) -> LocalRows:
        """Return rows that the driver holds."""
        return given(self.room, table, pieces)

    def latest(self, changes: Rows, key: Sequence[str], where: str | None, known: Rows) -> Latest:
        """Return each key's last state; see ``Engine.latest``."""
        from lakemill.engines.local.changed_rows import latest  # and Polars, only where it is used

        return latest(cast(LocalRows, changes), key, where, cast(LocalRows, known))

    def make(self, table: str, schema: pa.Schema, layout: Layout = PLAIN) -> bool:
        """Make a table unless there is one; see ``Engine.make``."""
        if self.snapshot(table) is not None:
            return False
        properties = dict(layout.properties) | ({"delta.enableChangeDataFeed": "true"} if layout.change_feed else {})
        if layout.stats:
            properties["delta.dataSkippingStatsColumns"] = ",".join(layout.stats)
        commits.create(table_names.location(table), schema, properties, layout.partition_by)
        return True

    def set_property(self, table: str, name: str, value: str) -> None:
        """Set a table's property; see ``Engine.set_property``."""
        DeltaTable(self._open(table).location).alter.set_table_properties({name: value}, raise_if_not_exists=False)

    def add_fields(self, table: str, schema: pa.Schema) -> None:
        """Add what a table lacks; see ``Engine.add_fields``."""
        commits.add_fields(self._open(table), schema)

    def widen(self, table: str, columns: pa.Schema) -> None:
        """Write a table again with wider types; see ``Engine.widen``."""
        snapshot = self._open(table)
        rows = LocalRows(self.room, tuple(snapshot.files()), snapshot.schema)
        wider = {field.name: field for field in columns}
        schema = pa.schema([wider.get(field.name, field) for field in snapshot.schema])
        commits.widen(snapshot, pa.RecordBatchReader.from_batches(schema, (b.cast(schema) for b in rows.batches())))

    def prepare(self, plan: PredictPlan, source: Snapshot) -> PredictPlan:
        """Say how many threads a model may use in each worker; files and modules are on this machine."""
        return replace(plan, threads=plan.threads or self.threads)

    def send(self, module: str) -> str | None:
        """Do nothing: workers import what this process can."""
        return None

    def settings(self, plan: PredictPlan, source: Snapshot) -> list[dict[str, str]]:
        """Return how work is spread."""
        workers = workers_for(plan, self.workers.count, self.forced)
        return [{"name": "engine.workers", "value": f"{workers.count} {workers.kind}", "reason": workers.reason}]

    @contextmanager
    def scored(
        self,
        rows: Rows,
        plan: PredictPlan,
        *,
        group_by: Sequence[str] = (),
        once: Once | None = None,
        into: str | None = None,
    ) -> Iterator[LocalScored]:
        """Run the inference once; see ``Engine.scored``."""
        room = replace(self.room, workers=workers_for(plan, self.slots, self.forced))
        scoring = Scoring(plan, room, self._folder(into), self._pace(cast(LocalRows, rows)))
        with scoring.scored(cast(LocalRows, rows), group_by, once) as scored:
            yield scored

    def _folder(self, table: str | None) -> str:
        """Return where results are written: in the table that they will be appended to, unless that has partitions."""
        found = None if table is None else self.snapshot(table)
        return str(self.room.scratch) if found is None or found.partition_by else found.location

    def follow(self, following: Following, on_slice: Callable[[Slice], None], watch: Watch) -> None:
        """Hand out what is new; see ``Engine.follow``."""
        follow(self.room, following, on_slice, watch)

    def append(self, scored: Scored | Rows, table: str, transaction: Transaction | None = None) -> bool:
        """Append rows in one commit; see ``Engine.append``."""
        self._fit(table, cast(LocalRows | LocalScored, scored).schema)
        snapshot = self._open(table)
        files = self._files(scored, self._folder(table))
        is_takable = not snapshot.partition_columns and may_be_taken(snapshot, files)
        if isinstance(scored, LocalScored):
            scored.is_taken = is_takable  # until it is known: a commit that fails may have been made all the same
        is_made = commits.append(snapshot, files, transaction) is not None
        if isinstance(scored, LocalScored):
            scored.is_taken = is_takable and is_made
        elif not (is_takable and is_made):
            discard(files)
        return is_made

    def replace(
        self, scored: Scored | Rows, table: str, where: str | None, transaction: Transaction | None = None
    ) -> bool:
        """Replace rows in one commit; see ``Engine.replace``."""
        self._fit(table, cast(LocalRows | LocalScored, scored).schema)
        files = self._files(scored, str(self.room.scratch))
        return commits.replace(self._open(table), files, where, transaction) is not None

    def overwrite(self, rows: Rows, table: str, made_by: str) -> None:
        """Make a table of these rows alone; see ``Engine.overwrite``."""
        files = self._files(rows, str(self.room.scratch))
        # delta-rs takes a property of ours from nobody but the maker of a table: it is made first, empty and owned.
        self.make(table, rows.schema, Layout(change_feed=True, properties=((MADE_BY, made_by),)))
        commits.overwrite(self._open(table), files, rows.schema)

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
        """Replace rows by their key in one commit; see ``Engine.merge``."""
        schema = cast(LocalRows | LocalScored, scored).schema
        self._fit(table, schema)
        files = self._files(scored, str(self.room.scratch))
        deleted = None if gone is None else gone.select(key).to_arrow()
        merged = commits.merge(
            self._open(table),
            files,
            key,
            _owned(own),
            transaction,
            columns=schema.names if own is None else [*schema.names, *RESERVED],
            deleted=deleted,
            replaces=replaces,
            patch=patch,
        )
        return merged is not None

    def set_null(self, table: str, field: str, where: str, transaction: Transaction) -> bool:
        """Make a struct's field null in some rows; see ``Engine.set_null``."""
        return commits.set_null(self._open(table), field, where, transaction) is not None

    def delete(self, table: str, where: str, transaction: Transaction | None = None) -> int | None:
        """Delete rows; see ``Engine.delete``."""
        return commits.delete(self._open(table), where, transaction)

    def delete_orphans(
        self, table: str, own: Own, source: Rows, key: Sequence[str], transaction: Transaction | None = None
    ) -> int | None:
        """Delete a job's rows that the source has not; see ``Engine.delete_orphans``."""
        snapshot = self._open(table)
        mine = LocalRows(self.room, TableFiles(snapshot), snapshot.schema).where(cast(str, _owned(own)))
        orphans = mine.without(cast(LocalRows, source), key).select(key).to_arrow()
        if not orphans.num_rows:
            return None
        merged = commits.merge(snapshot, [], key, _owned(own), transaction, deleted=orphans)
        return None if merged is None else int(orphans.num_rows)

    def optimize(self, table: str) -> dict[str, int]:
        """Compact a table."""
        return optimize_table(self._open(table))

    def vacuum(self, table: str) -> dict[str, int]:
        """Delete files that no version within the table's retention needs."""
        return vacuum_table(self._open(table))

    def _open(self, table: str) -> Opened:
        found = self.snapshot(table)
        if found is None:
            raise TableError("TABLE_NOT_FOUND", f"there is no Delta table '{table}'.", hint="make it first.")
        return found.opened

    def _pace(self, rows: LocalRows) -> Callable[[int], None] | None:
        """Return what counts the rows that are done, and says now and then how far that is."""
        if self.tell is None or self.on_rows is not None:
            return self.on_rows
        return Pace(self.tell, rows.known_count())

    def _fit(self, table: str, schema: pa.Schema) -> None:
        """Make the table if there is none, and add what it lacks."""
        if not self.make(table, schema) and lacks_fields(self._open(table).schema, schema):
            self.add_fields(table, schema)

    def _files(self, scored: Scored | Rows, folder: str) -> list[WrittenFile]:
        if isinstance(scored, LocalScored):
            return scored.files
        rows = cast(LocalRows, scored)
        made = rows.make(folder, on_rows=self._pace(rows))
        return [piece.file for piece in made if piece.file is not None]


def _owned(own: Own | None) -> str | None:
    """Return the predicate of a job's own rows."""
    if own is None:
        return None
    return all_equal(own)
