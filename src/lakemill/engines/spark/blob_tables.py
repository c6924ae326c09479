"""Delta tables that hold images: how they are laid out on disk, made, checked and compacted.

Encoded images do not shrink, so they are stored as they are: no compression, no dictionary, no minimum and maximum. Row
groups are cut by bytes, because a reader holds a whole one in memory. Delta takes these settings from the session
only, so everything that writes images runs in ``blob_session``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from lakemill.engines.spark import tables
from lakemill.engines.spark.session import get_session, session_with, task_slots
from lakemill.engines.sql import sql_text
from lakemill_udfs.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

ROW_GROUP_BYTES = 16 * 2**20
FILE_BYTES = 192 * 2**20
TASK_BYTES = 8 * 2**20
FILE_COST_BYTES = 32 * 2**10  # opening a file takes as long as reading so many bytes
TASKS_PER_CORE = 4

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
        tasks = TASKS_PER_CORE * task_slots(spark)
        yield session_with(spark, BLOB_SETTINGS | {"spark.sql.files.minPartitionNum": str(tasks)})
    finally:
        # createDataFrame makes its session the process's active one; without this, our settings would stay active.
        spark.createDataFrame([], "nothing int")


def spark_schema(spark: SparkSession, schema: pa.Schema) -> StructType:
    """Return an Arrow schema as Spark's."""
    return spark.createDataFrame(schema.empty_table()).schema


def ensure_table(
    spark: SparkSession,
    table: str,
    schema: pa.Schema,
    *,
    partition_by: Sequence[str] = (),
    stats: Sequence[str] = (),
    change_feed: bool = False,
    properties: Mapping[str, str] | None = None,
) -> bool:
    """Make a Delta table, or check that the one that is there has the schema's columns; it may have more.

    Args:
        spark: The session.
        table: Path or catalog name.
        schema: The columns to have.
        partition_by: The columns that make folders.
        stats: The columns that Delta keeps minimum and maximum of; without any, the first 32.
        change_feed: Whether a new table records its changes.
        properties: Further properties of a new table.

    Returns:
        Whether the table was made, and so is empty.

    Raises:
        TableError: ``TABLE_SCHEMA`` if the table has another schema or other partitions, ``TABLE_NOT_WRITABLE`` if it
            cannot be made.
    """
    wanted = spark_schema(spark, schema)
    if check_schema(spark, table, wanted, partition_by):
        return False
    made = dict(properties or {}) | ({"delta.enableChangeDataFeed": "true"} if change_feed else {})
    if kept := [name for name in stats if name not in partition_by]:
        made["delta.dataSkippingStatsColumns"] = ",".join(kept)
    _create(spark, table, wanted, partition_by, made)
    return True


def _create(
    spark: SparkSession, table: str, schema: StructType, partition_by: Sequence[str], properties: dict[str, str]
) -> None:
    from lakemill.engines.spark.errors import SPARK_FAILURES

    columns_sql = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in schema)
    partition_sql = f"PARTITIONED BY ({', '.join(partition_by)})" if partition_by else ""
    options = ", ".join(f"'{key}' = {sql_text(value)}" for key, value in properties.items())
    options_sql = f"TBLPROPERTIES ({options})" if options else ""
    try:
        spark.sql(
            f"CREATE TABLE IF NOT EXISTS {tables.sql_name(table)} ({columns_sql}) USING delta "
            f"{partition_sql} {options_sql}"
        )
    except SPARK_FAILURES as error:
        raise TableError(
            "TABLE_NOT_WRITABLE",
            f"the table '{table}' cannot be made.",
            hint="the folder must be writable, and empty if it is no Delta table.",
        ) from error


def check_schema(
    spark: SparkSession, table: str, schema: StructType, partition_by: Sequence[str] | None = None
) -> bool:
    """Return whether a table exists, after checking that it has at least the schema's columns.

    Args:
        spark: The session.
        table: Path or catalog name.
        schema: The columns to have.
        partition_by: The columns that make its folders; None for any.

    Raises:
        TableError: ``TABLE_SCHEMA``.
    """
    if not tables.exists(spark, table):
        return False
    found = {field.name: field.dataType.simpleString() for field in spark.table(tables.sql_name(table)).schema}
    wrong = [
        f"{field.name} {field.dataType.simpleString()} (got {found.get(field.name, 'no such column')})"
        for field in schema
        if found.get(field.name) != field.dataType.simpleString()
    ]
    hint = "name another output table, or move this one away."
    if wrong:
        raise TableError(
            "TABLE_SCHEMA", f"the table '{table}' has another schema: expected {', '.join(wrong)}.", hint=hint
        )
    parts = list(tables.detail(spark, table)["partitionColumns"])
    if partition_by is not None and parts != list(partition_by):
        raise TableError(
            "TABLE_SCHEMA", f"the table '{table}' is partitioned by {parts}, not by {list(partition_by)}.", hint=hint
        )
    return True


def append(rows: DataFrame, table: str) -> None:
    """Append rows to an existing table, columns by name, in one commit."""
    tables.save(rows.write.mode("append"), table)


def overwrite(rows: DataFrame, table: str) -> None:
    """Make a table of these rows alone, in one commit; a new table records its changes."""
    tables.save(rows.write.mode("overwrite").option("delta.enableChangeDataFeed", "true"), table)


def merge(rows: DataFrame, table: str, key: str, *, delete: str = "false") -> None:
    """Replace the rows of an existing table that have the key of a new row, and add the others, in one commit.

    Args:
        rows: The new rows; columns that only the table has stay as they are.
        table: Path or catalog name.
        key: The column that names a row.
        delete: SQL condition on a new row ``s``: the table's row is taken out instead.
    """
    update = ", ".join(f"t.{name} = s.{name}" for name in rows.columns)
    values = ", ".join(f"s.{name}" for name in rows.columns)
    rows.createOrReplaceTempView("lakemill_merge")
    rows.sparkSession.sql(
        f"MERGE INTO {tables.sql_name(table)} t USING lakemill_merge s ON t.{key} = s.{key} "  # noqa: S608 -- own names
        f"WHEN MATCHED AND {delete} THEN DELETE WHEN MATCHED THEN UPDATE SET {update} "
        f"WHEN NOT MATCHED AND NOT {delete} THEN INSERT ({', '.join(rows.columns)}) VALUES ({values})"
    )
    rows.sparkSession.catalog.dropTempView("lakemill_merge")


def task_count(total_bytes: int, files: int, slots: int) -> int:
    """Return into how many tasks, and so files, to split images.

    Small sets get few tasks; middling ones four for each core, so that no core waits at the end; large ones as many as
    keep each file near ``FILE_BYTES``.

    Args:
        total_bytes: Of all images.
        files: How many images.
        slots: Tasks that run at once.
    """
    cost = total_bytes + files * FILE_COST_BYTES
    return max(1, -(-total_bytes // FILE_BYTES), min(slots * TASKS_PER_CORE, cost // TASK_BYTES))


def optimize_table(table: str, spark: SparkSession | None = None) -> dict[str, int]:
    """Compact a table's small files, with the layout of this module.

    Args:
        table: Path or catalog name.
        spark: The session to use; without one, ``get_session``.

    Returns:
        ``files_added``, ``files_removed`` and the table's ``version``.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
    """
    with blob_session(spark or get_session()) as session:
        tables.read(session, table)
        metrics = session.sql(f"OPTIMIZE {tables.sql_name(table)}").collect()[0]["metrics"]
        return {
            "files_added": metrics["numFilesAdded"],
            "files_removed": metrics["numFilesRemoved"],
            "version": tables.version(session, table),
        }
