"""The ways through a source: everything in one commit, or what is new in a commit for each micro-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakemill import tables
from lakemill.checkpoint import Checkpoint
from lakemill.commits import Committed, commit, write_quarantine
from lakemill.spark_errors import SPARK_FAILURES, spark_failure
from lakemill_udfs.errors import ConfigError, LakemillError, RunError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakemill.predict import Run

CHANGED = ("DELTA_SOURCE_TABLE_IGNORE_CHANGES", "DELTA_SOURCE_IGNORE_DELETE", "DELTA_SCHEMA_CHANGED")


def run_full(run: Run) -> None:
    """Score all rows of the source's version into a new version of the output."""
    config, checkpoint = run.config, Checkpoint.of(run.config)
    version = (
        tables.version(run.spark, config.source.table)
        if not isinstance(config.source.version, int)
        else config.source.version
    )
    scored = run.scored(run.source.rows, source_version=version)
    # The checkpoint goes first: a run that dies between the two must not leave progress over rows that are not there.
    batch = commit(
        scored,
        config,
        {"overwriteSchema": "true"},
        mode="overwrite",
        metrics=not config.engine.group_by,
        before_commit=checkpoint.remove,
    )
    run.result.add(batch, None, version)
    run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
    write_quarantine(run.spark, config, f"metadata.run_id = '{run.result.run_id}'", {})


def run_incremental(run: Run) -> None:
    """Score what was added to the source since the job's last run; an ``availableNow`` stream of Delta.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
        RunError: ``SOURCE_CHANGED`` if the source had rows changed or deleted since.
    """
    config, checkpoint = run.config, Checkpoint.of(run.config)
    already = claim(run, checkpoint)
    batches = _Batches(run, checkpoint, already)
    # From the source as it is, not from the filtered snapshot: a stream reads commits.
    reader = run.spark.readStream.format("delta").option("maxBytesPerTrigger", str(config.engine.max_bytes_per_trigger))
    stream = (
        reader.load(tables.location(config.source.table))
        if tables.is_path(config.source.table)
        else reader.table(tables.sql_name(config.source.table))
    )
    query = (
        tables.filtered(stream, config.source.where)
        .writeStream.foreachBatch(batches)
        .queryName(f"{config.name}-{run.result.run_id[:8]}")
        .option("checkpointLocation", checkpoint.location)
        .trigger(availableNow=True)
        .start()
    )
    try:
        query.awaitTermination()
    except SPARK_FAILURES as error:
        raise batches.failure or _stopped(error, config.source.table) from error
    finally:
        query.stop()


def claim(run: Run, checkpoint: Checkpoint) -> bool:
    """Make sure that the checkpoint is this job's; return whether its first snapshot may hold scored rows.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if it was made for something else.
    """
    config = run.config
    identity: dict[str, Any] = {
        "job": config.name,
        "source": config.source.table,
        "where": config.source.where,
        "key": list(run.source.key),
        "output": config.output.table,
    }
    known = checkpoint.identity()
    if known is None:
        earlier = tables.read(run.spark, config.output.table).where(f"metadata.job = {_quoted(config.name)}")
        identity["has_earlier_rows"] = not run.is_new_output and not earlier.isEmpty()
        checkpoint.claim(identity)
        return bool(identity["has_earlier_rows"])
    changed = [key for key in identity if known.get(key) != identity[key]]
    if changed:
        raise ConfigError(
            "CHECKPOINT_OTHER_JOB",
            "the job's checkpoint was made with another "
            + ", ".join(f"{key} ({known.get(key)!r}, now {identity[key]!r})" for key in changed)
            + ".",
            hint="give the changed job another name and output; or run once with mode: full, which starts over.",
        )
    return bool(known.get("has_earlier_rows"))


class _Batches:
    """What happens with each micro-batch; keeps an error, of which Spark reports the text only."""

    def __init__(self, run: Run, checkpoint: Checkpoint, has_earlier_rows: bool) -> None:
        self.run, self.checkpoint, self.has_earlier_rows = run, checkpoint, has_earlier_rows
        self.failure: LakemillError | None = None
        self.is_first = True

    def __call__(self, rows: DataFrame, batch_id: int) -> None:
        try:
            self._commit(rows, batch_id)
        except LakemillError as error:
            self.failure = error
            raise
        except SPARK_FAILURES as error:
            self.failure = spark_failure(error)
            raise self.failure from error

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
                rows = _not_scored(rows, run)
            batch = self._score(rows, batch_id, query_id, offset.version)
            run.result.add(batch, batch_id, offset.version)
            run.tell(
                f"batch {batch_id}: committed {batch.rows} rows, {batch.rows_error} with errors, "
                f"source version {offset.version}"
            )
        self.is_first = False
        write_quarantine(
            run.spark,
            config,
            batch_rows,
            {"txnAppId": f"{config.name}/{query_id}/quarantine", "txnVersion": str(batch_id)},
        )

    def _score(self, rows: DataFrame, batch_id: int, query_id: str | None, source_version: int) -> Committed:
        config = self.run.config
        scored = self.run.scored(rows, query_id=query_id, batch_id=batch_id, source_version=source_version)
        return commit(scored, config, {"txnAppId": f"{config.name}/{query_id}", "txnVersion": str(batch_id)})


def _not_scored(rows: DataFrame, run: Run) -> DataFrame:
    """Return the rows whose key has no prediction of this job yet."""
    key = list(run.source.key)
    scored = (
        tables.read(rows.sparkSession, run.config.output.table)
        .where(f"metadata.job = {_quoted(run.config.name)}")
        .select(*key)
        .distinct()
    )
    return rows.join(scored, on=key, how="left_anti")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _stopped(error: Exception, table: str) -> LakemillError:
    text = str(error)
    if any(sign in text for sign in CHANGED):
        return RunError(
            "SOURCE_CHANGED",
            f"rows of the source '{table}' were changed or deleted, or its schema was, since the last run.",
            hint="mode: full scores the table as it is now.",
        )
    return spark_failure(error)
