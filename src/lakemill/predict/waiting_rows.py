"""What a predict job would score now, from the source's log alone: no data is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakemill.config.predict import PredictConfig
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.spark import tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class Waiting:
    """What would be scored.

    Args:
        mode: Of the job.
        rows: How many rows; None if the log does not say. With ``where`` or a lost checkpoint, at most so many.
        files: How many files; None for an older version.
        bytes: Size of those files.
        after_version: Version of the source that is scored already; None if nothing is.
        version: Newest version of the source.
        note: What makes the numbers upper bounds.
    """

    mode: str
    rows: int | None
    files: int | None
    bytes: int | None
    after_version: int | None
    version: int
    note: str | None = None


def waiting(spark: SparkSession, config: PredictConfig, source: DataFrame) -> Waiting:
    """Return what a job would score now.

    Args:
        spark: The session.
        config: The job.
        source: The source without ``where``, at the version asked for.
    """
    newest = tables.version(spark, config.source.table)
    note = "at most: 'where' leaves some out" if config.source.where else None
    if config.mode == "incremental":
        checkpoint = Checkpoint.of(config)
        last = checkpoint.last_batch()
        if last is not None:
            done = checkpoint.offset(last).version
            return _since(spark, config, done, newest, note)
        if tables.exists(spark, config.output.table):
            note = "at most: rows that this job has scored are left out by their key"
    rows = source.count()  # from the files' statistics: Delta answers it without reading them
    if config.source.version is not None:
        return Waiting(config.mode, rows, None, None, None, newest, note)
    detail = tables.detail(spark, config.source.table)
    return Waiting(config.mode, rows, detail["numFiles"], detail["sizeInBytes"], None, newest, note)


def _since(spark: SparkSession, config: PredictConfig, done: int, newest: int, note: str | None) -> Waiting:
    history = spark.sql(f"DESCRIBE HISTORY {tables.sql_name(config.source.table)} LIMIT {max(1, newest - done)}")
    commits = [row["operationMetrics"] or {} for row in history.collect() if row["version"] > done]
    counts = [_counts(metrics) for metrics in commits]
    rows, files, size = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return Waiting(config.mode, rows, files, size, done, newest, note)


def _counts(metrics: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return rows, files and bytes that a commit added; OPTIMIZE and changes of the schema added none."""

    def first(*names: str) -> int:
        return next((int(metrics[name]) for name in names if name in metrics), 0)

    rows = first("numTargetRowsInserted", "numOutputRows")
    if not rows:
        return 0, 0, 0
    return (
        rows,
        first("numTargetFilesAdded", "numAddedFiles", "numFiles"),
        first("numTargetBytesAdded", "numOutputBytes"),
    )
