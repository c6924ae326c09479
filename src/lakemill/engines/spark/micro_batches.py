"""What is new in a Delta source, in micro-batches: one commit a batch, skipped if it was made before a crash.

Batch jobs (``availableNow``) and streams (an interval) share it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint, check_identity, job_identity
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure, spark_text
from lakemill.engines.sql import sql_text
from lakemill.predict.commits import Committed, commit, write_quarantine
from lakemill.predict.model_updates import ModelUpdates
from lakemill.predict.rescore import Rescoring
from lakemill.predict.upserts import check_feed, remove_orphans, score_changes
from lakemill_udfs.errors import LakemillError, RunError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery

    from lakemill.config.predict import PredictConfig
    from lakemill.predict.run import Run
    from lakemill.predict.stream_progress import StreamProgress

CHANGED = ("DELTA_SOURCE_TABLE_IGNORE_CHANGES", "DELTA_SOURCE_IGNORE_DELETE", "DELTA_SCHEMA_CHANGED")

GONE = (
    "DELTA_MISSING_CHANGE_DATA",
    "DELTA_CHANGE_DATA_FILE_NOT_FOUND",
    "DELTA_LOG_FILE_NOT_FOUND",
    "DELTA_TRUNCATED_TRANSACTION_LOG",
    "DELTA_VERSIONS_NOT_CONTIGUOUS",
    "but the earliest available version",
    "FAILED_READ_FILE.FILE_NOT_EXIST",
)


def start_query(
    run: Run, progress: StreamProgress | None = None, **trigger: Any
) -> tuple[StreamingQuery, MicroBatches]:
    """Start the query that scores what was added to the source since the job's last run.

    Args:
        run: What it needs.
        progress: Measures a stream; None for a batch job.
        trigger: As ``DataStreamWriter.trigger`` takes it: ``availableNow=True`` or ``processingTime="10 seconds"``.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
    """
    checkpoint = Checkpoint.of(run.config)
    batches = MicroBatches(run, checkpoint, claim(run, checkpoint), progress)
    writer = (
        added_rows(run)
        .writeStream.foreachBatch(batches)
        .queryName(f"{run.config.name}-{run.result.run_id[:8]}")
        .option("checkpointLocation", checkpoint.location)
        .trigger(**trigger)
    )
    return writer.start(), batches


def added_rows(run: Run) -> DataFrame:
    """Return the stream of rows that are added to the source; of ``changes: upsert`` all changes, not filtered.

    Raises:
        ConfigError: ``FEED_DISABLED``.
    """
    config = run.config
    # From the source as it is, not from the filtered snapshot: a stream reads commits.
    reader = run.spark.readStream.format("delta").option("maxBytesPerTrigger", str(config.engine.max_bytes_per_trigger))
    if config.source.changes == "upsert":
        check_feed(run)
        reader = reader.option("readChangeFeed", "true")
    stream = (
        reader.load(table_names.location(config.source.table))
        if table_names.is_path(config.source.table)
        else reader.table(tables.sql_name(config.source.table))
    )
    return stream if config.source.changes == "upsert" else tables.filtered(stream, config.source.where)


def stream_failure(error: Exception, batches: MicroBatches, config: PredictConfig) -> LakemillError:
    """Return the error to raise for one of a query: the batch's own, or what Delta says of the source."""
    if batches.failure is not None:
        return batches.failure
    return source_failure(error, config)


def source_failure(error: Exception, config: PredictConfig) -> LakemillError:
    """Return the error to raise for one of Spark's, with what it says of the source's history."""
    text, source = spark_text(error), config.source.table
    if any(sign in text for sign in CHANGED):
        return RunError(
            "SOURCE_CHANGED",
            f"rows of the source '{source}' were changed or deleted, or its schema was, since the last run.",
            hint="source: {changes: upsert} follows changes; mode: full scores the table as it is now.",
        )
    if any(sign in text for sign in GONE):
        return RunError(
            "SOURCE_VERSIONS_GONE",
            f"versions of the source '{source}' that this job has not seen were vacuumed or have no change feed.",
            hint="mode: missing scores rows without a prediction, mode: full all of them; then this mode goes on.",
        )
    return spark_failure(error)


def claim(run: Run, checkpoint: Checkpoint) -> bool:
    """Make sure that the checkpoint is this job's; return whether its first snapshot may hold scored rows.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if it was made for something else.
    """
    config, identity = run.config, job_identity(run.config, run.source.key)
    if damage := checkpoint.damage():
        # Its batches cannot be told apart from those of a new start, so it is as good as lost: the keys decide.
        run.tell(f"the checkpoint is damaged ({damage}) and starts anew; what has a prediction is not scored again")
        checkpoint.remove()
    if run.is_new_output and checkpoint.identity() is not None:
        run.tell("the predictions that the checkpoint was made with are gone: it starts anew")
        checkpoint.remove()
    known = checkpoint.identity()
    if known is not None:
        check_identity(known, identity)
        return bool(known.get("has_earlier_rows"))
    earlier = tables.read(run.spark, config.output.table).where(f"metadata.job = {sql_text(config.name)}")
    has_earlier_rows = not run.is_new_output and not earlier.isEmpty()
    checkpoint.claim(identity | {"has_earlier_rows": has_earlier_rows})
    return has_earlier_rows


class MicroBatches:
    """What happens with each micro-batch; keeps an error, of which Spark reports the text only.

    Args:
        run: What it needs.
        checkpoint: Of the query.
        has_earlier_rows: Whether the first snapshot may hold rows that were scored under a checkpoint that is lost.
        progress: Measures a stream; None for a batch job.
    """

    def __init__(
        self, run: Run, checkpoint: Checkpoint, has_earlier_rows: bool, progress: StreamProgress | None = None
    ) -> None:
        self.run, self.checkpoint, self.has_earlier_rows = run, checkpoint, has_earlier_rows
        self.progress, self.models = progress, ModelUpdates(run)
        self.rescoring = Rescoring()
        self.lock = threading.Lock()  # a batch in Spark's thread, or what is done between batches in the main thread
        self.session = run.spark
        self.failure: LakemillError | None = None
        self.is_first, self.is_ended = True, False

    def __call__(self, rows: DataFrame, batch_id: int) -> None:
        """Score and commit one micro-batch; ``foreachBatch`` calls it."""
        try:
            with self.lock:
                if self.is_ended:  # to return would tell Spark that the batch is done
                    raise RunError("STREAM_ENDED", f"batch {batch_id} is left to the next start.")
                self.session = rows.sparkSession
                self.run = self.models.apply(self.run, self.run.spark, self.session)
                self._commit(rows, batch_id)
        except LakemillError as error:
            self.failure = error
            raise
        except SPARK_FAILURES as error:
            self.failure = source_failure(error, self.run.config)
            raise self.failure from error

    def look_for_models(self) -> None:
        """Look for new models while there is no batch, so that the next one need not wait for their test."""
        with self.lock:
            self.run = self.models.apply(self.run, self.run.spark, self.session)

    def rescore(self) -> bool:
        """Score one batch of earlier rows again, if the job wants it; return whether there may be more."""
        with self.lock:
            return self.rescoring.batch(self.run)

    def end(self) -> None:
        """Wait for the running batch, and let no other begin."""
        with self.lock:
            self.is_ended = True

    def _commit(self, rows: DataFrame, batch_id: int) -> None:
        run, config = self.run, self.run.config
        query_id, offset = self.checkpoint.query_id(), self.checkpoint.offset(batch_id)
        batch_rows = f"metadata.query_id = '{query_id}' AND metadata.batch_id = {batch_id}"
        # Only the first batch of a run can be one that was committed before the last run died.
        if (
            self.is_first
            and not run.is_new_output
            and not tables.read(run.spark, config.output.table).where(batch_rows).isEmpty()
        ):
            run.tell(f"batch {batch_id} was committed by the last run already")
        else:
            if self.has_earlier_rows and offset.is_snapshot:
                rows = self._not_done(rows, batch_id, offset.version)
            began = time.perf_counter()
            batch = self._score(rows, batch_id, query_id, offset.version)
            run.result.add(batch, batch_id, offset.version)
            measures = ""
            if self.progress is not None:
                before = None if offset.is_snapshot else self.checkpoint.offset(batch_id - 1).version
                measures = ", " + self.progress.line(batch, time.perf_counter() - began, before, offset.version)
            run.tell(
                f"batch {batch_id}: committed {batch.rows} rows, {batch.rows_error} with errors, "
                f"source version {offset.version}{measures}"
            )
        self.is_first = False
        write_quarantine(
            run.spark,
            config,
            batch_rows,
            {"txnAppId": f"{config.name}/{query_id}/quarantine", "txnVersion": str(batch_id)},
        )

    def _not_done(self, rows: DataFrame, batch_id: int, source_version: int) -> DataFrame:
        if self.run.config.source.changes == "append":
            return not_scored(rows, self.run)
        if batch_id == 0:
            self.run.tell("the job's progress is lost: every row is scored again, as any may have changed since")
            if self.run.config.source.deleted == "remove":
                remove_orphans(self.run, source_version)
        return rows

    def _score(self, rows: DataFrame, batch_id: int, query_id: str | None, source_version: int) -> Committed:
        config = self.run.config
        origin: dict[str, Any] = {"query_id": query_id, "batch_id": batch_id}
        transaction = {"txnAppId": f"{config.name}/{query_id}", "txnVersion": str(batch_id)}
        if config.source.changes == "upsert":
            return score_changes(self.run, rows, origin, transaction, source_version)
        scored = self.run.scored(rows, source_version=source_version, **origin)
        return commit(scored, config, transaction | {"mergeSchema": "true"})  # a new model may have added outputs


def not_scored(rows: DataFrame, run: Run) -> DataFrame:
    """Return the rows whose key has no prediction of this job yet."""
    key = list(run.source.key)
    scored = (
        tables.read(rows.sparkSession, run.config.output.table)
        .where(f"metadata.job = {sql_text(run.config.name)}")
        .select(*key)
        .distinct()
    )
    return rows.join(scored, on=key, how="left_anti")
