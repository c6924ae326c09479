"""Files into a Delta table of images; run again, it adds what is new and replaces what changed.

One run lists the files, compares them with the table and its quarantine by path, modification time and length, appends
the new ones in one commit, merges the changed ones in another, and derives the rest from what the table then holds.
These commits alone decide what a file became, so a run killed anywhere and repeated loses and doubles nothing:

* committed: a row of the table;
* listed but not committed: looked at again and, if it is no usable image, a row of ``<table>_quarantine``;
* changed for the worse: the good row stays in the table, and the quarantine says why it was not replaced;
* gone from the source: its row stays. Ingest never deletes an image.

Two runs into one table at the same time are not supported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from lakemill.config.base import UNITS
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import (
    FILE_COST_BYTES,
    append,
    blob_session,
    ensure_table,
    merge,
    spark_schema,
    task_count,
)
from lakemill.engines.spark.session import get_session, task_slots
from lakemill.engines.stopping import stop_signals
from lakemill.ingest.listing import FILES, KEY, index_labels, list_files
from lakemill.ingest.quarantine import RETRY, read_rejected, update_quarantine
from lakemill.ingest.thumbnails import add_thumbnails
from lakemill_udfs.images.rows import IMAGES, LISTING, REJECTED, find_rejected, read_images

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakemill.config.ingest import IngestConfig

logger = logging.getLogger(__name__)

Say = Callable[[str], None]

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

    def to_dict(self) -> dict[str, Any]:
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
        spark: The session to use; without one, ``get_session``.
        progress: Called with one line of text at each stage; without one, the lines are logged.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND`` or ``SOURCE_SCHEME``.
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
        RunError: Storage, a worker or a commit failed; nothing of the failed commit is there, and a new run repeats it.
    """
    with blob_session(spark or get_session(config.name)) as session:
        run = Ingest(config, session, progress or logger.info)
        return run.once() if config.every_seconds is None else _repeat(run, config.every_seconds)


def _repeat(run: Ingest, every_seconds: int) -> IngestResult:
    result = IngestResult(run.config.output.table)
    with stop_signals() as stop:
        while not stop.is_set():
            last = run.once()
            result = last.after(result)
            stop.wait(max(0.0, every_seconds - last.seconds))
    return result


@contextmanager
def _spark_errors() -> Iterator[None]:
    from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure

    try:
        yield
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error


@dataclass(frozen=True)
class Ingest:
    """An ingest job in its session, to run once or again and again.

    Args:
        config: What to do.
        spark: A ``blob_session``.
        say: Gets a line of text at each stage.
    """

    config: IngestConfig
    spark: SparkSession
    say: Say

    def once(self) -> IngestResult:
        """List the files and add what is new; raises as ``ingest_images``."""
        started = time.monotonic()
        files = list_files(self.config.source)
        self.say(f"Listed {len(files):,} files, {_size(files)}.")
        with _spark_errors():
            result = self._ingest(files) if len(files) else self._nothing()
        return replace(result, seconds=round(time.monotonic() - started, 3))

    def _nothing(self) -> IngestResult:
        self.say("No file matches the source: nothing to do. Check source.path and source.glob.")
        table = self.config.output.table
        return IngestResult(table, tables.version(self.spark, table) if tables.exists(self.spark, table) else None)

    def _ingest(self, files: pl.DataFrame) -> IngestResult:
        table, partition_by = self.config.output.table, self.config.output.partition_by
        made = ensure_table(self.spark, table, IMAGES, partition_by=partition_by, stats=STATS, change_feed=True)
        before = pl.DataFrame(LISTING.empty_table()) if made else self._committed()
        quarantined = read_rejected(self.spark, table)
        candidates = files.join(before, on=KEY, how="anti", nulls_equal=True)
        still_rejected = self._look_again(candidates, quarantined)
        todo = index_labels(candidates.join(still_rejected, on=KEY, how="anti", nulls_equal=True), before)
        new, changed = (todo.join(before, on="path", how=how) for how in ("anti", "semi"))
        self._commit(new, "new", append)
        self._commit(changed, "changed", partial(merge, key="path"))
        after = self._committed() if len(todo) else before
        added, replaced = (part.join(after, on=KEY, how="semi", nulls_equal=True) for part in (new, changed))
        missing = todo.join(pl.concat([added, replaced]), on="path", how="anti")
        rejected = self._rejected(missing)
        new_reason = still_rejected.join(quarantined, on=[*KEY, "code"], how="anti", nulls_equal=True)
        good = files.join(after, on=KEY, how="semi", nulls_equal=True)
        update_quarantine(self.spark, table, quarantined, pl.concat([rejected, new_reason], how="diagonal"), good)
        for code, count in rejected["code"].value_counts(sort=True).iter_rows():
            self.say(f"Rejected {count:,} files as {code}.")
        if self.config.thumbnails:
            add_thumbnails(self.spark, table, self.config.thumbnails, self.say)
        read_bytes = int(added["length"].sum()) + int(replaced["length"].sum())
        return IngestResult(
            table,
            tables.version(self.spark, table),
            len(files),
            len(files) - len(todo),
            len(added),
            len(replaced),
            len(rejected),
            read_bytes,
        )

    def _committed(self) -> pl.DataFrame:
        """Return the table's files as ``FILES`` and ``label_index``, without their bytes."""
        return _polars(self.spark.table(tables.sql_name(self.config.output.table)).select(*FILES, "label_index"))

    def _look_again(self, files: pl.DataFrame, quarantined: pl.DataFrame) -> pl.DataFrame:
        """Return as ``REJECTED`` the files whose place is still the quarantine, for the old reason or another one."""
        known = quarantined.join(files, on=KEY, how="semi", nulls_equal=True)
        doubtful = files.join(known.filter(pl.col("code").is_in(RETRY)), on=KEY, how="semi", nulls_equal=True)
        settled = known.filter(~pl.col("code").is_in(RETRY))
        return pl.concat([settled, self._rejected(doubtful)], how="diagonal")

    def _commit(self, files: pl.DataFrame, kind: str, write: Callable[[DataFrame, str], None]) -> None:
        if files.is_empty():
            return
        table = self.config.output.table
        self.say(f"Reading {len(files):,} {kind} files, {_size(files)} ...")
        read = partial(read_images, limits=self.config.limits.limits())
        write(self._listing(files).mapInArrow(read, spark_schema(self.spark, IMAGES)), table)
        self.say(f"Committed the {kind} files to {table}.")

    def _listing(self, files: pl.DataFrame) -> DataFrame:
        """Return files as ``LISTING``, split into tasks of equal bytes, in the order of partition and path."""
        from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

        tasks = task_count(int(files["length"].sum()), len(files), task_slots(self.spark))
        order = [name for name in self.config.output.partition_by if name in LISTING.names]
        cost = pl.col("length") + FILE_COST_BYTES
        task = ((cost.cum_sum() - cost) * tasks // cost.sum()).cast(pl.Int32)
        rows = files.sort(*order, "path").select(*LISTING.names, task=task)
        return self.spark.createDataFrame(rows.to_arrow()).repartitionById(tasks, F.col("task")).drop("task")

    def _rejected(self, files: pl.DataFrame) -> pl.DataFrame:
        """Look at files again, and return as ``REJECTED`` those that are no usable image."""
        if files.is_empty():
            return pl.DataFrame(REJECTED.empty_table())
        listing = self._listing(files.with_columns(label_index=pl.lit(None, pl.Int32)))
        look = partial(find_rejected, limits=self.config.limits.limits())
        return _polars(listing.mapInArrow(look, spark_schema(self.spark, REJECTED)))


def _polars(rows: DataFrame) -> pl.DataFrame:
    return pl.DataFrame(rows.toArrow())


def _size(files: pl.DataFrame) -> str:
    size = float(files["length"].sum())
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if size >= UNITS[unit.lower()]), "B")
    return f"{size / UNITS[unit.lower()]:,.1f} {unit}"
