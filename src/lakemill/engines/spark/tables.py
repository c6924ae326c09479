"""Delta tables in Spark, by path or by catalog name.

Everything goes through DataFrames and SQL, so that it works over Spark Connect too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lakemill.engines import table_names
from lakemill.engines.engine import MADE_BY, PLAIN, Layout
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.sql import quoted, sql_text
from lakemill_udfs.errors import ConfigError, RunError, TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
    from pyspark.sql.types import StructType

INVALID = re.compile(r"[ ,;{}()\n\t=]")
"""Letters that a Delta table's columns may have with column mapping only."""


def find(spark: SparkSession, table: str) -> DataFrame | None:
    """Return a Delta table as a DataFrame, None if there is none.

    It reads the table's log only as far as its schema (``DESCRIBE DETAIL`` would also add up all files).
    """
    from pyspark.errors import AnalysisException

    try:
        rows = spark.table(table_names.in_sql(table))
        _ = rows.schema  # Spark Connect looks for the table only now
    except AnalysisException:
        return None
    return rows


def exists(spark: SparkSession, table: str) -> bool:
    """Return whether the Delta table exists and can be read."""
    return find(spark, table) is not None


def read(spark: SparkSession, table: str, version: int | str | None = None) -> DataFrame:
    """Return a Delta table as a DataFrame.

    Args:
        spark: The session.
        table: Path or catalog name.
        version: A version number or a timestamp to travel to; None is the newest.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no such Delta table, ``TABLE_VERSION`` if it has no such version.
    """
    rows = find(spark, table)
    if rows is None:
        raise table_names.not_found(table)
    if version is None:
        return rows
    clause = f"VERSION AS OF {version}" if str(version).isdigit() else f"TIMESTAMP AS OF '{version}'"
    from pyspark.errors import AnalysisException

    try:
        return spark.sql(f"SELECT * FROM {table_names.in_sql(table)} {clause}")  # noqa: S608 -- the names are quoted above
    except AnalysisException as error:
        raise TableError(
            "TABLE_VERSION",
            f"table '{table}' cannot be read at version '{version}'.",
            hint=f"DESCRIBE HISTORY {table_names.in_sql(table)} lists what there is.",
        ) from error


def filtered(rows: DataFrame, where: str | None) -> DataFrame:
    """Return the rows that a job's ``source.where`` keeps; all without one.

    Raises:
        ConfigError: ``WHERE_INVALID`` if the predicate does not parse or does not fit the columns.
    """
    from pyspark.errors import AnalysisException, ParseException

    if where is None:
        return rows
    try:
        kept = rows.where(where)
        _ = kept.schema  # Spark Connect looks at a predicate only now
    except (ParseException, AnalysisException) as error:
        raise ConfigError(
            "WHERE_INVALID",
            f"source.where does not fit the table: {where!r} ({error.getCondition()}).",
            hint=f"it is a Spark SQL predicate on: {', '.join(rows.columns)}",
        ) from error
    return kept


def widen(spark: SparkSession, table: str, columns: StructType) -> None:
    """Write a table again with wider types of some columns; see ``Engine.widen``.

    An overwrite is not conditional on what was read for it: a commit that came between is seen by the versions, and
    brought back.

    Raises:
        RunError: ``COMMIT_CONFLICT``.
    """
    from pyspark.sql import functions as fn

    before, folders = version(spark, table), detail(spark, table)["partitionColumns"]
    rows = read(spark, table, before)
    for field in columns:
        wider = fn.col(quoted(field.name)).cast(field.dataType)
        rows = rows.withColumn(field.name, wider.alias(field.name, metadata=rows.schema[field.name].metadata))
    save(rows.write.mode("overwrite").option("overwriteSchema", "true").partitionBy(*folders), table)
    history = spark.sql(f"DESCRIBE HISTORY {table_names.in_sql(table)}").where(f"version > {before}").collect()
    made = min((row["version"] for row in history if row["operationParameters"].get("mode") == "Overwrite"), default=0)
    if made != before + 1:
        spark.sql(f"RESTORE TABLE {table_names.in_sql(table)} TO VERSION AS OF {made - 1}")
        raise RunError(
            "COMMIT_CONFLICT",
            f"other jobs changed '{table}' while its columns were widened; it is as they left it.",
            hint="run it again.",
        )


def save(writer: DataFrameWriter, table: str) -> None:
    """Write to a Delta table, by path or by catalog name."""
    if table_names.is_path(table):
        writer.format("delta").save(table_names.location(table))
    else:
        writer.format("delta").saveAsTable(table_names.in_sql(table))


def overwrite(rows: DataFrame, table: str, made_by: str) -> None:
    """Make a Delta table of these rows alone; see ``Engine.overwrite``."""
    if exists(rows.sparkSession, table):
        save(rows.write.mode("overwrite"), table)
        return
    writer = rows.writeTo(table_names.in_sql(table)).using("delta")
    writer.tableProperty("delta.enableChangeDataFeed", "true").tableProperty(MADE_BY, made_by).create()


def make(spark: SparkSession, table: str, schema: StructType, layout: Layout = PLAIN) -> bool:
    """Make an empty Delta table unless it is there; the columns keep their metadata. It takes no Spark job.

    Returns:
        Whether it was made.

    Raises:
        TableError: ``TABLE_NOT_WRITABLE``.
    """
    if find(spark, table) is not None:
        return False
    properties = dict(layout.properties) | ({"delta.enableChangeDataFeed": "true"} if layout.change_feed else {})
    if kept := [name for name in layout.stats if name not in layout.partition_by]:
        properties["delta.dataSkippingStatsColumns"] = ",".join(kept)
    if any(INVALID.search(name) for name in _names(schema)):
        properties["delta.columnMapping.mode"] = "name"
    try:
        # Two jobs may make it at the same time.
        retry_conflicts(lambda: _create(spark, table, schema, layout.partition_by, properties), table)
    except SPARK_FAILURES as error:
        if find(spark, table) is not None:  # another job made it meanwhile
            return False
        raise TableError(
            "TABLE_NOT_WRITABLE",
            f"the table '{table}' cannot be made: {spark_failure(error).message}",
            hint="check its path and permissions; the folder must be empty if it is no Delta table.",
        ) from error
    return True


def _names(schema: StructType) -> Iterator[str]:
    """Yield the names of columns and of the fields of structs among them."""
    from pyspark.sql.types import StructType

    for field in schema:
        yield field.name
        if isinstance(field.dataType, StructType):
            yield from _names(field.dataType)


def _create(
    spark: SparkSession, table: str, schema: StructType, partition_by: Sequence[str], properties: Mapping[str, str]
) -> None:
    if partition_by:
        columns = ", ".join(f"{quoted(field.name)} {field.dataType.simpleString()}" for field in schema)
        options = ", ".join(f"{sql_text(key)} = {sql_text(value)}" for key, value in properties.items())
        spark.sql(
            f"CREATE TABLE IF NOT EXISTS {table_names.in_sql(table)} ({columns}) USING delta "
            f"PARTITIONED BY ({', '.join(map(quoted, partition_by))})"
            + (f" TBLPROPERTIES ({options})" if options else "")
        )
    else:
        spark.catalog.createTable(table_names.in_sql(table), source="delta", schema=schema, **properties)


def detail(spark: SparkSession, table: str) -> Row:
    """Return what Delta says of an existing table as it is now: ``location``, ``numFiles``, ``sizeInBytes``, ..."""
    return spark.sql(f"DESCRIBE DETAIL {table_names.in_sql(table)}").collect()[0]


def set_property(spark: SparkSession, table: str, name: str, value: str) -> None:
    """Set a property of an existing Delta table, in a commit of its own."""
    spark.sql(f"ALTER TABLE {table_names.in_sql(table)} SET TBLPROPERTIES ({sql_text(name)} = {sql_text(value)})")


def version(spark: SparkSession, table: str, asked: int | str | None = None) -> int:
    """Return the version of an existing Delta table that is read where a version or a time is asked for."""
    from pyspark.sql import functions as fn

    if asked is not None and str(asked).isdigit():
        return int(asked)
    history = f"DESCRIBE HISTORY {table_names.in_sql(table)}"
    if asked is None:
        return int(spark.sql(f"{history} LIMIT 1").collect()[0]["version"])
    until = spark.sql(history).where(fn.col("timestamp") <= fn.lit(asked).cast("timestamp"))
    return int(until.agg(fn.max("version")).collect()[0][0])


def kind(spark: SparkSession, table: str) -> str:
    """Return ``delta``, or what else a catalog has under this name: ``view``, ``parquet`` ..."""
    if table_names.is_path(table):
        return "delta"
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table_names.in_sql(table)}").collect()
    said = {row["col_name"]: row["data_type"] for row in rows}
    return str(said.get("Provider") or "view").lower()
