"""What is new in a Delta source, on Structured Streaming: each micro-batch is a slice.

Micro-batches run in the query's own thread. Between them, the thread that started the query does what else there is.
A table that is read for the first time, and is one slice, needs no query: it is read as any table is.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Following, Slice, Watch
from lakemill.engines.positions import WHOLE_VERSION, Position
from lakemill.engines.source_errors import source_changed, versions_gone
from lakemill.engines.spark import tables
from lakemill.engines.spark.ahead import look_ahead
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure, spark_text
from lakemill.engines.spark.few_rows import are_few
from lakemill.engines.spark.rows import SparkRows
from lakemill.engines.spark.session import settings_held
from lakemill_udfs.errors import LakemillError, RunError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

POLL_SECONDS = 1
END_SECONDS = 10.0

PAST_SCHEMAS = {
    "spark.databricks.delta.streaming.unsafeReadOnIncompatibleColumnMappingSchemaChanges.enabled": "true",
    "spark.databricks.delta.changeDataFeed.unsafeBatchReadOnIncompatibleSchemaChanges.enabled": "true",
}
"""Commits from before a column was dropped or renamed are read as the table has its columns now, by the files' own
names for them; ``predict/moved_columns.py`` refuses what that would read otherwise than it was."""

CHANGED = (
    "DELTA_SOURCE_TABLE_IGNORE_CHANGES",
    "DELTA_SOURCE_IGNORE_DELETE",
    "DELTA_SCHEMA_CHANGED",
    "DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE",
    "DELTA_STREAMING_CANNOT_CONTINUE_PROCESSING",
    "DELTA_STREAMING_METADATA_EVOLUTION",
    "DELTA_CHANGE_DATA_FEED_INCOMPATIBLE",
)

OTHER_TABLE = "DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE"

GONE = (
    "DELTA_MISSING_CHANGE_DATA",
    "DELTA_CHANGE_DATA_FILE_NOT_FOUND",
    "DELTA_LOG_FILE_NOT_FOUND",
    "DELTA_TRUNCATED_TRANSACTION_LOG",
    "DELTA_VERSIONS_NOT_CONTIGUOUS",
    "but the earliest available version",
    "FAILED_READ_FILE.FILE_NOT_EXIST",
)


def follow(
    spark: SparkSession,
    following: Following,
    on_slice: Callable[[Slice], None],
    watch: Watch,
    reach: Callable[[SparkSession], None],
) -> None:
    """Hand out what is new; see ``Engine.follow``.

    Args:
        spark: Reads the source.
        following: What.
        on_slice: Scores and commits.
        watch: What else there is to do.
        reach: Gets the session in which micro-batches run.
    """
    slices = _Slices(following, on_slice, reach)
    if following.into is not None and not slices.are_few(0, following.source.version):
        look_ahead(spark, following.into)
    if _is_one_slice(following):
        _take_whole(spark, following, slices)
        _drain(watch)
        return
    query: StreamingQuery | None = None
    with settings_held(spark, PAST_SCHEMAS):  # Delta asks for them when a stream is made and when it reads
        try:
            query = _start(spark, following, slices)
            _until_ended(query, slices, watch)
        except SPARK_FAILURES as error:
            raise slices.failure or source_failure(error, following.source.table) from error
        finally:
            if query is not None:
                query.stop()


def _is_one_slice(following: Following) -> bool:
    """Return whether all that there is to do is a table as it is now, of which nothing was done, in one slice."""
    if following.every_seconds is not None or following.changes or following.checkpoint.begun() is not None:
        return False
    files, size = following.source.size
    return files > 0 and size <= following.max_bytes


def _take_whole(spark: SparkSession, following: Following, slices: _Slices) -> None:
    """Hand a table out as it is, with progress written down as Structured Streaming does.

    To start a query and let it find out which files there are takes a second and more, and its micro-batch reads all
    columns.
    """
    checkpoint, source = following.checkpoint, following.source
    if checkpoint.query_id() is None:
        checkpoint.start(str(uuid.uuid4()))
    rows = tables.filtered(tables.read(spark, source.table, source.version), following.where)
    checkpoint.begin(0, Position(source.version + 1), source.id)
    slices(rows, 0)
    checkpoint.finish(0)


def _start(spark: SparkSession, following: Following, slices: _Slices) -> StreamingQuery:
    every = following.every_seconds
    trigger: dict[str, Any] = {"availableNow": True} if every is None else {"processingTime": f"{every} seconds"}
    return (
        _added_rows(spark, following)
        .writeStream.foreachBatch(slices)
        .queryName(f"{following.name}-{following.run_id[:8]}")
        .option("checkpointLocation", following.checkpoint.location)
        .trigger(**trigger)
        .start()
    )


def _added_rows(spark: SparkSession, following: Following) -> DataFrame:
    """Return the stream of rows that are added to the source, or of all its changes."""
    table = following.source.table
    # From the source as it is, not from the filtered snapshot: a stream reads commits.
    reader = spark.readStream.format("delta").option("maxBytesPerTrigger", str(following.max_bytes))
    if following.changes:
        reader = reader.option("readChangeFeed", "true")
    stream = (
        reader.load(table_names.location(table))
        if table_names.is_path(table)
        else reader.table(table_names.in_sql(table))
    )
    return stream if following.changes else tables.filtered(stream, following.where)


def _changes_of(spark: SparkSession, following: Following, first: int, last: int) -> DataFrame:
    """Return what commits of the source changed, all of it."""
    table = following.source.table
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", str(first)).option("endingVersion", str(last))
    return (
        reader.load(table_names.location(table))
        if table_names.is_path(table)
        else reader.table(table_names.in_sql(table))
    )


def _until_ended(query: StreamingQuery, slices: _Slices, watch: Watch) -> None:
    while not query.awaitTermination(POLL_SECONDS):  # the pause also lets a waiting batch of new rows go first
        if watch.stop.is_set():
            slices.end()
            _await_end(query)
            return
        with slices.lock:
            watch.between()
    _drain(watch)


def _drain(watch: Watch) -> None:
    while not watch.stop.is_set() and watch.drain():
        pass


def _await_end(query: StreamingQuery) -> None:
    """Let the query write down that its last batch is done; without that, the next start looks at it again."""
    end = time.monotonic() + END_SECONDS
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < end:
        time.sleep(0.05)


def source_failure(error: Exception, table: str) -> LakemillError:
    """Return the error to raise for one of Spark's, with what it says of the source's history."""
    return history_failure(spark_text(error), table) or spark_failure(error)


def history_failure(text: str, table: str) -> LakemillError | None:
    """Return the error that Spark's text says of the source's history; None if it says something else."""
    if OTHER_TABLE in text:
        return RunError(
            "SOURCE_REPLACED",
            f"the source '{table}' is another table than the one that this job has read.",
            hint="mode: full scores this table and replaces the job's predictions; or put the former table back.",
        )
    if any(sign in text for sign in CHANGED):
        return source_changed(table)
    if any(sign in text for sign in GONE):
        return versions_gone(table)
    return None


class _Slices:
    """Hands each micro-batch over; keeps an error, of which Spark reports the text only.

    Args:
        following: What is followed.
        on_slice: Scores and commits.
        reach: Gets the session in which micro-batches run.
    """

    def __init__(
        self, following: Following, on_slice: Callable[[Slice], None], reach: Callable[[SparkSession], None]
    ) -> None:
        self.following, self.on_slice, self.reach = following, on_slice, reach
        self.lock = threading.Lock()  # a batch in Spark's thread, or what is done between batches in the main thread
        self.failure: LakemillError | None = None
        self.is_ended = False

    def __call__(self, rows: DataFrame, batch_id: int) -> None:
        """Hand one micro-batch over; ``foreachBatch`` calls it."""
        try:
            with self.lock:
                if self.is_ended:  # to return would tell Spark that the batch is done
                    raise RunError("STREAM_ENDED", f"batch {batch_id} is left to the next start.")
                self.reach(rows.sparkSession)
                piece = self._whole(rows, batch_id)
                if piece is not None:
                    self.on_slice(piece)
            is_stream = self.following.every_seconds is not None
            if self.following.into is not None and is_stream and not (piece and cast(SparkRows, piece.rows).are_few):
                look_ahead(rows.sparkSession, self.following.into)  # the next rows need not wait for it
        except LakemillError as error:
            cause = error.__cause__
            self.failure = error
            if isinstance(cause, SPARK_FAILURES):
                self.failure = history_failure(spark_text(cause), self.following.source.table) or error
            raise self.failure from cause
        except SPARK_FAILURES as error:
            self.failure = source_failure(error, self.following.source.table)
            raise self.failure from error

    def _whole(self, rows: DataFrame, batch_id: int) -> Slice | None:
        """Return the slice of a micro-batch; of changes, whole commits only.

        Delta ends a micro-batch within a large commit, between the rows that it deletes and those that it adds. Such a
        commit belongs to the micro-batch that it ends in, which reads it from its beginning.

        Returns:
            None if no commit ends in the micro-batch.
        """
        checkpoint = self.following.checkpoint
        end, at = checkpoint.offset(batch_id), checkpoint.position(batch_id)
        if not self.following.changes or at is None or at.is_snapshot:
            first = 0 if end.is_snapshot or not batch_id else checkpoint.offset(batch_id - 1).version
            few = self.are_few(first, end.version)
            return Slice(batch_id, SparkRows(rows, are_few=few), end.version, end.is_snapshot)
        first_open = self._first_open(at)
        before = checkpoint.position(batch_id - 1) if batch_id else None
        if before is not None and not before.is_snapshot:
            first = self._first_open(before)
            if first == first_open:
                return None
            if before.index != WHOLE_VERSION and first == before.version:
                rows = _changes_of(rows.sparkSession, self.following, first, first_open - 1)
        if at.index != WHOLE_VERSION:
            rows = rows.where(f"_commit_version < {first_open}")
        return Slice(batch_id, SparkRows(rows), first_open - 1, end.is_snapshot)

    def are_few(self, first: int, last: int) -> bool:
        """Return whether the rows that commits of the source add are few, and none of them takes some away."""
        return not self.following.changes and are_few(self.following.source.table, first, last)

    def _first_open(self, at: Position) -> int:
        """Return the first version of which something is left after a position; change files are never split."""
        if at.index == WHOLE_VERSION:
            return at.version
        said = DeltaLog(self.following.source.location).actions(at.version) or []
        return at.version + any("cdc" in action for action in said)

    def end(self) -> None:
        """Wait for the running batch, and let no other begin."""
        with self.lock:
            self.is_ended = True
