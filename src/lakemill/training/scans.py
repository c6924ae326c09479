"""DataFrames that are only a scan, a filter and a projection of a Delta table: which version's rows they are.

What the plan says is a guess, and Spark proves it: the version's rows with the filter that was read are as many in
each file as the DataFrame's, and all of the DataFrame's rows pass that filter. Both are rows of the same files, so they
are the same. Only public methods are used, which Spark Connect has too.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from lakemill.engines.local.tables import open_table
from lakemill.training.frames import delta_root, local_form
from lakemill.training.plan_text import NotAScanError, ScanPlan, read_plan
from lakemill.training.snapshot import TrainingTable, open_training_table
from lakemill_udfs.errors import SetupError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PLAN_SETTINGS = {"spark.sql.debug.maxToStringFields": "1000000"}
METADATA = "_metadata"


def table_of(df: DataFrame, where: str | None) -> TrainingTable:
    """Return the rows of the table's version that a DataFrame is, with another filter upon it.

    Args:
        df: Any DataFrame.
        where: SQL; None keeps all of its rows.

    Raises:
        NotAScanError: it computes something, is of an older version, or is not known to be this.
    """
    from lakemill.engines.spark.errors import SPARK_FAILURES

    try:
        location, version, plan = _scan_of(df)
    except SPARK_FAILURES as error:
        raise NotAScanError("Spark does not tell which files its rows are from") from error
    both = " AND ".join(f"({one})" for one in (plan.where, where) if one) or None
    try:
        return open_training_table(location, version, both, plan.columns)
    except SetupError as error:  # what is read without Spark is less than what Spark reads
        raise NotAScanError(f"it cannot be read without Spark ({error.code})") from error


def _scan_of(df: DataFrame) -> tuple[str, int, ScanPlan]:
    from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

    folders = {local_form(url).rpartition("/")[0] for url in df.inputFiles()}
    location = delta_root(min(folders)) if folders else None
    table = None if location is None else open_table(location)
    if location is None or table is None:
        raise NotAScanError("it is not over one Delta table")
    reader = df.sparkSession.read.format("delta").option("versionAsOf", str(table.version))
    whole = reader.load(location)
    plan = read_plan(_explained(df), {field.name: field.dataType.simpleString() for field in whole.schema})
    if METADATA in whole.columns or len(set(df.columns)) < len(df.columns):
        raise NotAScanError("its columns' names are used twice")
    own = whole if plan.where is None else whole.where(plan.where)
    measures: list[Any] = [F.count("*")]
    if any(file.dropped is not None for file in table.files()):
        measures.append(F.bit_xor(F.xxhash64(F.col(f"{METADATA}.row_index"))))

    def counted(rows: DataFrame) -> set[tuple[Any, ...]]:
        return {tuple(row) for row in rows.groupBy(f"{METADATA}.file_path").agg(*measures).collect()}

    asked = counted(df)
    if plan.where is not None and counted(df.where(plan.where)) != asked:
        raise NotAScanError("its filter cannot be read back as SQL")
    if own.select(*plan.columns).schema != df.schema or counted(own) != asked:
        raise NotAScanError("its rows are not those of the table's newest version")
    return location, table.version, plan


def _explained(df: DataFrame) -> str:
    from lakemill.engines.spark.session import settings_held

    spark, name = df.sparkSession, f"lakemill_{uuid.uuid4().hex}"
    df.createOrReplaceTempView(name)
    try:
        with settings_held(spark, PLAN_SETTINGS):
            return str(spark.sql(f"EXPLAIN EXTENDED SELECT * FROM {name}").collect()[0][0])  # noqa: S608 -- a name of our own
    finally:
        spark.catalog.dropTempView(name)
