"""Names of Delta tables: a path if it has a slash or a scheme, else a catalog name.

Everything goes through DataFrames and SQL, so that it works over Spark Connect too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lakemill_udfs.errors import ConfigError, TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
    from pyspark.sql.types import StructType

SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")


def is_path(table: str) -> bool:
    """Return whether ``table`` is a path (it has a slash or a scheme) rather than a catalog name."""
    return "/" in table or bool(SCHEME.match(table))


def location(table: str) -> str:
    """Return a path table's absolute location; relative paths start at the working folder.

    Raises:
        TableError: ``TABLE_NOT_PATH`` if ``table`` is a catalog name.
    """
    if not is_path(table):
        raise TableError(
            "TABLE_NOT_PATH",
            f"'{table}' is a catalog name and has no path of its own.",
            hint="give a path with a slash, or set the option that needs a path.",
        )
    return table if SCHEME.match(table) else str(Path(table).absolute())


def sql_name(table: str) -> str:
    """Return the quoted name for SQL and ``spark.table``."""
    if is_path(table):
        return f"delta.`{location(table)}`"
    return ".".join(f"`{part.strip('`')}`" for part in table.split("."))


def sql_text(text: str) -> str:
    """Return ``text`` as a literal for SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def sibling(table: str, suffix: str) -> str:
    """Return the name of a table beside ``table``, for example ``lake/images`` + ``_quarantine``."""
    return table.rstrip("/") + suffix


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
            + (f" (looked in {location(table)})." if is_path(table) else " in the catalog."),
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
    if is_path(table):
        writer.format("delta").save(location(table))
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


def set_property(spark: SparkSession, table: str, name: str, value: str) -> None:
    """Set a property of an existing Delta table, in a commit of its own."""
    spark.sql(f"ALTER TABLE {sql_name(table)} SET TBLPROPERTIES ('{name}' = {sql_text(value)})")


def version(spark: SparkSession, table: str) -> int:
    """Return the newest version of an existing Delta table."""
    return int(spark.sql(f"DESCRIBE HISTORY {sql_name(table)} LIMIT 1").collect()[0]["version"])


def job_name(table: str) -> str:
    """Return the name of a job that is not given one: the last part of its output's name."""
    return re.split(r"[/.]", table.rstrip("/"))[-1] or "lakemill"
