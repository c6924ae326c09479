"""Files into a Delta table of images; run again, it adds what is new and replaces what changed.

One run lists the files, compares them with the table and its quarantine by path, modification time and length, appends
the new ones in one commit, merges the changed ones in another, and derives the rest from what the table then holds.
These commits alone decide what a file became, so a run killed anywhere and repeated loses and doubles nothing:

* committed: a row of the table;
* listed but not committed: looked at again and, if it is no usable image, a row of ``<table>_quarantine``;
* changed for the worse: the good row stays in the table, and the quarantine says why it was not replaced;
* gone from the source: its row stays. Ingest never deletes an image.

Of two runs into one table at the same time only one commits; the other lists again, and finds what is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from lakemill.config.base import UNITS, must_be
from lakemill.config.ingest import IngestConfig
from lakemill.config.row_files import ROOTS_PROPERTY, roots_property
from lakemill.engines.choice import open_engine
from lakemill.engines.conditional import TableState
from lakemill.engines.engine import Engine, Layout, Transaction, opened
from lakemill.engines.image_layout import FILE_COST_BYTES, piece_count
from lakemill.engines.output_tables import ensure_table
from lakemill.engines.places import check_apart, places_of
from lakemill.engines.relations import Rows
from lakemill.engines.stopping import stop_signals
from lakemill.ingest.listing import FILES, KEY, check_local, index_labels, list_files
from lakemill.ingest.places import ingest_needs, ingest_places
from lakemill.ingest.quarantine import RETRY, read_rejected, update_quarantine
from lakemill.ingest.thumbnails import APP, add_thumbnails
from lakemill_udfs.errors import RunError
from lakemill_udfs.images.rows import IMAGES, LISTING, REJECTED, find_rejected, read_images

if TYPE_CHECKING:
    from lakemill.config.ingest import IngestConfig
    from lakemill.engines.choice import SparkSession

logger = logging.getLogger(__name__)

Say = Callable[[str], None]

ATTEMPTS = 3
"""To commit, while other runs into the table are first."""

STATS = [name for name in IMAGES.names if name not in ("sha256", "content")]


@dataclass(frozen=True)
class IngestResult:
    """What one run did; with an interval, all of its runs together.

    Args:
        table: The table of images.
        version: Its version after the run; None if there is no table, because there was no file.
        listed: Files that match the source.
        unchanged: Files that were in the table or its quarantine already, as they are.
        added: New rows.
        replaced: Rows whose file had changed.
        rejected: Files that this run put into the quarantine.
        bytes: Size of the files added and replaced.
        seconds: Wall-clock time.
    """

    table: str
    version: int | None = None
    listed: int = 0
    unchanged: int = 0
    added: int = 0
    replaced: int = 0
    rejected: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return the run in one line."""
        state = f"{self.table} is at version {self.version}" if self.version is not None else "no table was made"
        return (
            f"{self.listed:,} files: {self.added:,} added, {self.replaced:,} replaced, {self.rejected:,} rejected, "
            f"{self.unchanged:,} unchanged; {state}, {self.seconds:.1f} s"
        )

    def after(self, earlier: IngestResult) -> IngestResult:
        """Return this run with what earlier runs did added up; what was found is this run's."""
        names = ("added", "replaced", "rejected", "bytes", "seconds")
        return replace(self, **{name: getattr(earlier, name) + getattr(self, name) for name in names})


def ingest_images(
    config: IngestConfig, spark: SparkSession | None = None, *, progress: Say | None = None
) -> IngestResult:
    """Bring a source's image files into a Delta table.

    With an interval as ``trigger`` it goes on until SIGTERM or Ctrl-C, ends what it is doing, and returns the sum.

    Args:
        config: What to do.
        spark: The session to use; without one, ``config.engine`` says what it runs on.
        progress: Called with one line of text at each stage; without one, the lines are logged.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND`` or ``SOURCE_SCHEME``.
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
        RunError: Storage, a worker or a commit failed; nothing of the failed commit is there, and a new run repeats it.
    """
    must_be(config, IngestConfig)
    check_local(config.source)
    check_apart(ingest_places(config))
    say = progress or logger.info
    with open_engine(spark, ingest_needs(config), config.engine, say).for_images() as engine:
        check_apart(ingest_places(config), places_of(engine))
        run = Ingest(config, engine, say)
        return run.once() if config.every_seconds is None else _repeat(run, config.every_seconds)


def _repeat(run: Ingest, every_seconds: int) -> IngestResult:
    result = IngestResult(run.config.output.table)
    with stop_signals() as stop:
        while not stop.is_set():
            last = run.once()
            result = last.after(result)
            stop.wait(max(0.0, every_seconds - last.seconds))
    return result


@dataclass(frozen=True)
class Ingest:
    """An ingest job, to run once or again and again.

    Args:
        config: What to do.
        engine: One ``for_images``.
        say: Gets a line of text at each stage.
    """

    config: IngestConfig
    engine: Engine
    say: Say

    def once(self) -> IngestResult:
        """List the files and add what is new; raises as ``ingest_images``."""
        started = time.monotonic()
        files = list_files(self.config.source)
        self.say(f"Listed {len(files):,} files, {_size(files)}.")
        result = self._settled(files) if len(files) else self._nothing()
        return replace(result, seconds=round(time.monotonic() - started, 3))

    def _settled(self, files: pl.DataFrame) -> IngestResult:
        """Do the work, again where another run into the table was first: then its rows are there."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._ingest(files)
            except RunError as error:
                if error.code != "RUN_OVERTAKEN":
                    raise
                self.say("Another run committed to the table meanwhile: looking again.")
        return self._ingest(files)

    def _nothing(self) -> IngestResult:
        self.say("No file matches the source: nothing to do. Check source.path and source.glob.")
        there = self.engine.snapshot(self.config.output.table)
        return IngestResult(self.config.output.table, None if there is None else there.version)

    def _ingest(self, files: pl.DataFrame) -> IngestResult:
        table, engine = self.config.output.table, self.engine
        made = self._ensure_table()
        state = TableState.read(engine, table, APP)
        before = pl.DataFrame(LISTING.empty_table()) if made and not state.transaction else self._committed()
        quarantined = read_rejected(engine, table)
        candidates = files.join(before, on=KEY, how="anti", nulls_equal=True)
        still_rejected = self._look_again(candidates, quarantined)
        todo = index_labels(candidates.join(still_rejected, on=KEY, how="anti", nulls_equal=True), before)
        new, changed = (todo.join(before, on="path", how=how) for how in ("anti", "semi"))
        self._commit(new, "new", state, lambda rows, own: engine.append(rows, table, own))
        self._commit(changed, "changed", state, lambda rows, own: engine.merge(rows, table, ["path"], own))
        after = self._committed() if len(todo) else before
        added, replaced = (part.join(after, on=KEY, how="semi", nulls_equal=True) for part in (new, changed))
        missing = todo.join(pl.concat([added, replaced]), on="path", how="anti")
        rejected = self._rejected(missing)
        new_reason = still_rejected.join(quarantined, on=[*KEY, "code"], how="anti", nulls_equal=True)
        good = files.join(after, on=KEY, how="semi", nulls_equal=True)
        update_quarantine(engine, table, quarantined, pl.concat([rejected, new_reason], how="diagonal"), good)
        for code, count in rejected["code"].value_counts(sort=True).iter_rows():
            self.say(f"Rejected {count:,} files as {code}.")
        if self.config.thumbnails:
            add_thumbnails(engine, table, self.config.thumbnails, self.config.limits.limits(), self.say)
        read_bytes = int(added["length"].sum()) + int(replaced["length"].sum())
        return IngestResult(
            table,
            opened(engine, table).version,
            len(files),
            len(files) - len(todo),
            len(added),
            len(replaced),
            len(rejected),
            read_bytes,
        )

    def _ensure_table(self) -> bool:
        """Make the table, or check it; keep in it where its files come from, as rows' paths are opened only below that.

        Returns:
            Whether it was made.
        """
        table, paths = self.config.output.table, self.config.source.paths
        recorded = ((ROOTS_PROPERTY, roots_property(paths, {}) or "[]"),)
        layout = Layout(tuple(self.config.output.partition_by), tuple(STATS), change_feed=True, properties=recorded)
        if ensure_table(self.engine, table, IMAGES, layout):
            return True
        if (roots := roots_property(paths, opened(self.engine, table).properties)) is not None:
            self.engine.set_property(table, ROOTS_PROPERTY, roots)
        return False

    def _committed(self) -> pl.DataFrame:
        """Return the table's files as ``FILES`` and ``label_index``, without their bytes."""
        rows = self.engine.rows(opened(self.engine, self.config.output.table))
        return pl.DataFrame(rows.select([*FILES, "label_index"]).to_arrow())

    def _look_again(self, files: pl.DataFrame, quarantined: pl.DataFrame) -> pl.DataFrame:
        """Return as ``REJECTED`` the files whose place is still the quarantine, for the old reason or another one."""
        known = quarantined.join(files, on=KEY, how="semi", nulls_equal=True)
        doubtful = files.join(known.filter(pl.col("code").is_in(RETRY)), on=KEY, how="semi", nulls_equal=True)
        settled = known.filter(~pl.col("code").is_in(RETRY))
        return pl.concat([settled, self._rejected(doubtful)], how="diagonal")

    def _commit(
        self, files: pl.DataFrame, kind: str, state: TableState, write: Callable[[Rows, Transaction], bool]
    ) -> None:
        if files.is_empty():
            return
        self.say(f"Reading {len(files):,} {kind} files, {_size(files)} ...")
        read = partial(read_images, limits=self.config.limits.limits())
        rows = self._listing(files).map(read, IMAGES)
        state.commit(lambda own: write(rows, own), is_needed=False, looks=False)
        self.say(f"Committed the {kind} files to {self.config.output.table}.")

    def _listing(self, files: pl.DataFrame) -> Rows:
        """Return files as ``LISTING``, split into pieces of equal bytes, in the order of partition and path."""
        pieces = piece_count(int(files["length"].sum()), len(files), self.engine.slots)
        order = [name for name in self.config.output.partition_by if name in LISTING.names]
        cost = pl.col("length") + FILE_COST_BYTES
        piece = ((cost.cum_sum() - cost) * pieces // cost.sum()).cast(pl.Int32)
        rows = files.sort(*order, "path").with_columns(piece=piece)
        listing = rows.select(LISTING.names).to_arrow().cast(LISTING)
        return self.engine.given(listing, rows["piece"].to_list())

    def _rejected(self, files: pl.DataFrame) -> pl.DataFrame:
        """Look at files again, and return as ``REJECTED`` those that are no usable image."""
        if files.is_empty():
            return pl.DataFrame(REJECTED.empty_table())
        listing = self._listing(files.with_columns(label_index=pl.lit(None, pl.Int32)))
        look = partial(find_rejected, limits=self.config.limits.limits())
        return pl.DataFrame(listing.map(look, REJECTED).to_arrow())


def _size(files: pl.DataFrame) -> str:
    size = float(files["length"].sum())
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if size >= UNITS[unit.lower()]), "B")
    return f"{size / UNITS[unit.lower()]:,.1f} {unit}"
