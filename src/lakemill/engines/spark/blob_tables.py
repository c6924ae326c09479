"""Delta tables that hold images, in Spark's settings (``image_layout``), and the upkeep of tables.

Delta takes these settings from the session only, so everything that writes images runs in ``blob_session``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from lakemill.engines import table_names
from lakemill.engines.image_layout import FILE_BYTES, PIECES_PER_SLOT, ROW_GROUP_BYTES
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.session import session_with, task_slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LISTING_TASKS = 16  # Spark's default starts thousands of tasks, which take minutes on a few cores

BLOB_READ_SETTINGS = {
    # Spark's batches have thousands of rows; of images these are gigabytes. A few rows also stay near the processor.
    "spark.sql.parquet.columnarReaderBatchSize": "16",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(8 * 2**20),
}

BLOB_SETTINGS = BLOB_READ_SETTINGS | {
    "spark.sql.parquet.compression.codec": "uncompressed",
    "parquet.enable.dictionary#content": "false",
    "parquet.column.statistics.enabled#content": "false",
    "parquet.block.size": str(ROW_GROUP_BYTES),
    # Parquet looks at a row group's size after 100 rows first: of large images that would be gigabytes.
    "parquet.block.size.row.check.min": "1",
    "parquet.page.size.row.check.min": "1",
    "spark.databricks.delta.optimize.maxFileSize": str(FILE_BYTES),
    "spark.databricks.delta.optimize.minFileSize": str(FILE_BYTES // 2),
    # Long common folders would fill the 32 characters that Delta keeps of a path, and no file could be skipped by it.
    "spark.databricks.io.skipping.stringPrefixLength": "256",
    # Scans are split to keep every core busy, but not within a row group.
    "spark.sql.files.openCostInBytes": str(ROW_GROUP_BYTES),
    # Without this, Spark sorts the images themselves before it writes them to a partitioned table.
    "spark.sql.maxConcurrentOutputFileWriters": "8",
}


@contextmanager
def blob_session(spark: SparkSession) -> Iterator[SparkSession]:
    """Give a session beside ``spark`` whose reads and writes treat images as this module says."""
    try:
        tasks = PIECES_PER_SLOT * task_slots(spark)
        yield session_with(spark, BLOB_SETTINGS | {"spark.sql.files.minPartitionNum": str(tasks)})
    finally:
        # createDataFrame makes its session the process's active one; without this, our settings would stay active.
        spark.createDataFrame([], "nothing int")


def optimize_table(spark: SparkSession, table: str) -> dict[str, int]:
    """Compact a table's small files; one that holds blobs keeps the layout of this module.

    A running job's commit that conflicts is done again, and a stream reads nothing twice: compaction is marked as no
    change.

    Returns:
        ``files_added``, ``files_removed`` and the table's ``version``.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
        RunError: ``COMMIT_CONFLICT``.
    """
    from pyspark.sql.types import BinaryType

    has_blobs = any(isinstance(field.dataType, BinaryType) for field in tables.read(spark, table).schema)
    with blob_session(spark) if has_blobs else nullcontext(spark) as session:
        statement = f"OPTIMIZE {table_names.in_sql(table)}"
        metrics = retry_conflicts(lambda: session.sql(statement).collect(), table)[0]["metrics"]
        return {
            "files_added": metrics["numFilesAdded"],
            "files_removed": metrics["numFilesRemoved"],
            "version": tables.version(session, table),
        }


def vacuum_table(spark: SparkSession, table: str) -> dict[str, int]:
    """Delete files that no version within the table's retention needs; Delta's default is 7 days."""
    tasks = {"spark.sql.sources.parallelPartitionDiscovery.parallelism": str(LISTING_TASKS)}
    session = session_with(spark, tasks)
    session.sql(f"VACUUM {table_names.in_sql(table)}").collect()
    return {"version": tables.version(session, table)}
