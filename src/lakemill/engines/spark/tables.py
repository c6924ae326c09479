"""Delta tables in Spark, by path or by catalog name.

Everything goes through DataFrames and SQL, so that it works over Spark Connect too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill.engines import table_names
from lakemill_udfs.errors import ConfigError, TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
    from pyspark.sql.types import StructType


def sql_name(table: str) -> str:
    """Return the quoted name for SQL and ``spark.table``."""
    if table_names.is_path(table):
        return f"delta.`{table_names.location(table)}`"
    return ".".join(f"`{part.strip('`')}`" for part in table.split("."))


def find(spark: SparkSession, table: str) -> DataFrame | None:
    """Return a Delta table as a DataFrame, None if there is none.

    It reads the table's log only as far as its schema (``DESCRIBE DETAIL`` would also add up all files).
    """
    from pyspark.errors import AnalysisException

    try:
        rows = spark.table(sql_name(table))
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
        raise TableError(
            "TABLE_NOT_FOUND",
            f"there is no Delta table '{table}'"
            + (f" (looked in {table_names.location(table)})." if table_names.is_path(table) else " in the catalog."),
            hint="paths need a slash and start at the working folder; `lakemill ingest` makes a table of images.",
        )
    if version is None:
        return rows
    clause = f"VERSION AS OF {version}" if str(version).isdigit() else f"TIMESTAMP AS OF '{version}'"
    from pyspark.errors import AnalysisException

    try:
        return spark.sql(f"SELECT * FROM {sql_name(table)} {clause}")  # noqa: S608 -- the names are quoted above
    except AnalysisException as error:
        raise TableError(
            "TABLE_VERSION",
            f"table '{table}' cannot be read at version '{version}'.",
            hint=f"DESCRIBE HISTORY {sql_name(table)} lists what there is.",
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


def save(writer: DataFrameWriter, table: str) -> None:
    """Write to a Delta table, by path or by catalog name."""
    if table_names.is_path(table):
        writer.format("delta").save(table_names.location(table))
    else:
        writer.format("delta").saveAsTable(sql_name(table))


def make(spark: SparkSession, table: str, schema: StructType) -> None:
    """Make an empty Delta table unless it is there; the columns keep their metadata. It takes no Spark job."""
    from pyspark.errors import AnalysisException

    try:
        spark.catalog.createTable(sql_name(table), source="delta", schema=schema)
    except AnalysisException as error:
        if error.getCondition() != "TABLE_OR_VIEW_ALREADY_EXISTS":
            raise


def detail(spark: SparkSession, table: str) -> Row:
    """Return what Delta says of an existing table as it is now: ``location``, ``numFiles``, ``sizeInBytes``, ..."""
    return spark.sql(f"DESCRIBE DETAIL {sql_name(table)}").collect()[0]


def version(spark: SparkSession, table: str) -> int:
    """Return the newest version of an existing Delta table."""
    return int(spark.sql(f"DESCRIBE HISTORY {sql_name(table)} LIMIT 1").collect()[0]["version"])
