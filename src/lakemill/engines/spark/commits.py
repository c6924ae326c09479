"""Spark's writes to Delta: each one is one commit, done again while others conflict with it.

DataFrames take a transaction's id as an option; MERGE and DELETE take it from the session's settings only, so they run
in a session of ours in which nothing else writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from lakemill.engines import table_names
from lakemill.engines.engine import Own, Patch, Transaction
from lakemill.engines.schemas import is_wider
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_text
from lakemill.engines.spark.rows import SparkRows, frame_of, unused_names
from lakemill.engines.spark.schemas import arrow_type, column_of
from lakemill.engines.spark.scoring import ScoredAsWritten, SparkScored
from lakemill.engines.sql import quoted, sql_text
from lakemill_udfs.errors import TableError
from lakemill_udfs.plan import KEPT, RESERVED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
    from pyspark.sql.types import DataType, StructType

    from lakemill.engines.relations import Rows, Scored

TRANSACTION_SETTINGS = ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion")
LAST_COMMIT = "spark.databricks.delta.lastCommitVersionInSession"
"""Delta sets it after each commit of a session; a write that a transaction's id skips leaves it as it was."""

VIEW = "lakemill_scored"
GONE = "__gone"
ROWS_PER_FILE = 1_000_000


def append(scored: Scored | Rows, table: str, transaction: Transaction | None) -> bool:
    """Append rows in one commit; see ``Engine.append``."""

    def writer() -> DataFrameWriter:
        writer = _few_files(scored, table).write.mode("append").option("mergeSchema", "true")
        return _with_transaction(writer, transaction)

    return _write(scored, writer, table)


def replace(scored: Scored | Rows, table: str, where: str | None, transaction: Transaction | None) -> bool:
    """Replace rows in one commit; see ``Engine.replace``."""

    def writer() -> DataFrameWriter:
        writer = _few_files(scored, table if where is not None else None).write.mode("overwrite")
        writer = (
            writer.option("overwriteSchema", "true")
            if where is None
            else writer.option("replaceWhere", where).option("mergeSchema", "true")
        )
        return _with_transaction(writer, transaction)

    return _write(scored, writer, table)


def _session(scored: Scored | Rows) -> SparkSession:
    return scored.session if isinstance(scored, ScoredAsWritten) else _frame(scored).sparkSession


def _frame(scored: Scored | Rows) -> DataFrame:
    if isinstance(scored, ScoredAsWritten):
        return scored.frame()
    return scored.frame if isinstance(scored, SparkScored) else frame_of(cast("Rows", scored))


def _few_files(scored: Scored | Rows, table: str | None) -> DataFrame:
    frame = _frame(scored)
    there = None if table is None else tables.find(frame.sparkSession, table)
    if table is not None and there is not None:
        frame = _with_folders(_filled(frame, there.schema), there.schema, table)
    return frame.coalesce(1 + scored.rows // ROWS_PER_FILE) if isinstance(scored, SparkScored) else frame


def _with_folders(frame: DataFrame, schema: StructType, table: str) -> DataFrame:
    """Return rows with the columns that make the table's folders, null where they are not the job's."""
    from pyspark.sql import functions as fn

    missing = [field for field in schema if field.name not in frame.columns]
    folders = tables.detail(frame.sparkSession, table)["partitionColumns"] if missing else []
    for field in missing:
        if field.name in folders:
            frame = frame.withColumn(field.name, fn.lit(None).cast(field.dataType))
    return frame


def _filled(frame: DataFrame, schema: StructType) -> DataFrame:
    """Return rows whose structs have all fields that a table's have, null where only the table has them.

    Columns that are wider in the table are as wide.
    """
    from pyspark.sql import functions as fn
    from pyspark.sql.types import StructType

    wanted = {field.name: field.dataType for field in schema}
    for field in frame.schema:
        kind = wanted.get(field.name)
        if kind is not None and is_wider(arrow_type(kind), arrow_type(field.dataType)):
            frame = frame.withColumn(field.name, fn.col(quoted(field.name)).cast(kind))
            continue
        if not isinstance(kind, StructType) or not isinstance(field.dataType, StructType):
            continue
        column = fn.col(quoted(field.name))
        missing = [inner for inner in kind if inner.name not in field.dataType.names]
        for inner in missing:
            column = column.withField(quoted(inner.name), fn.lit(None).cast(inner.dataType))
        if missing:
            frame = frame.withColumn(field.name, column)
    return frame


def _with_transaction(writer: DataFrameWriter, transaction: Transaction | None) -> DataFrameWriter:
    if transaction is None:
        return writer
    return writer.option("txnAppId", transaction.app).option("txnVersion", str(transaction.version))


def _write(scored: Scored | Rows, writer: Callable[[], DataFrameWriter], table: str) -> bool:
    with _watched(_session(scored)) as is_made:
        retry_conflicts(lambda: tables.save(writer(), table), table)
    made = is_made()
    if made and isinstance(scored, ScoredAsWritten):
        scored.written()
    return made


@contextmanager
def _watched(spark: SparkSession) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the session made a commit meanwhile."""
    spark.conf.unset(LAST_COMMIT)
    yield lambda: spark.conf.get(LAST_COMMIT, None) is not None


def merge(
    scored: Scored | Rows,
    table: str,
    key: Sequence[str],
    transaction: Transaction | None,
    *,
    own: Own | None,
    gone: Rows | None,
    replaces: str | None,
    patch: Patch | None = None,
) -> bool:
    """Replace the rows with the keys of ``scored``, add the others; see ``Engine.merge``."""
    from pyspark.sql import functions as fn

    frame = _frame(scored)
    there = tables.read(frame.sparkSession, table)
    frame = _filled(frame, there.schema)
    columns, flag = frame.columns, unused_names([GONE], frame.columns)[GONE]
    rows = frame.withColumn(flag, fn.lit(False))
    if gone is not None:
        keys = frame_of(gone)
        removed = keys.select(*(column_of(keys, name) for name in key), fn.lit(True).alias(flag))
        rows = rows.unionByName(removed, allowMissingColumns=True)
    emptied = [name for name in there.columns if own is not None and name in RESERVED and name not in columns]
    metadata = None if own is None or "metadata" not in columns else frame.schema["metadata"].dataType
    statement = _statement(
        table, key, columns, flag, own=own, replaces=replaces, emptied=emptied, metadata=_kept(metadata)
    )
    if patch is not None and own is not None:
        statement = _patching(table, key, own, patch, cast("StructType", there.schema["metadata"].dataType).names)
    rows.createOrReplaceTempView(VIEW)
    spark = rows.sparkSession
    try:
        with _transaction(spark, transaction), _watched(spark) as made:
            retry_conflicts(lambda: spark.sql(statement).collect(), table)
            return made()
    except SPARK_FAILURES as error:
        if "DELTA_MULTIPLE_SOURCE_ROW_MATCHING" in spark_text(error):
            raise TableError(
                "KEY_NOT_UNIQUE",
                f"several rows of the source or of '{table}' have the same {', '.join(key)}.",
                hint="source: {key: [...]} must name columns that tell rows apart.",
            ) from error
        raise
    finally:
        spark.catalog.dropTempView(VIEW)


def _statement(
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    flag: str,
    *,
    own: Own | None,
    replaces: str | None,
    emptied: Sequence[str],
    metadata: str | None,
) -> str:
    same_key = " AND ".join(f"t.{quoted(name)} <=> s.{quoted(name)}" for name in key)
    values_of = {name: f"s.{quoted(name)}" for name in columns} | ({"metadata": metadata} if metadata else {})
    updates = [f"t.{quoted(name)} = {value}" for name, value in values_of.items()]
    update = ", ".join([*updates, *(f"t.{quoted(name)} = NULL" for name in emptied)])
    names, values = (", ".join(f"{prefix}{quoted(name)}" for name in columns) for prefix in ("", "s."))
    gone = f"s.{quoted(flag)}"
    mine = f"{_owned('t', own)} AND " if own is not None else ""
    others = f" WHEN NOT MATCHED BY SOURCE AND {mine}({replaces}) THEN DELETE" if replaces is not None else ""
    return (
        # Evolution: a new model may have added outputs.
        f"MERGE WITH SCHEMA EVOLUTION INTO {table_names.in_sql(table)} t "  # noqa: S608 -- names are quoted
        f"USING {VIEW} s ON {mine}{same_key} "
        f"WHEN MATCHED AND {gone} THEN DELETE WHEN MATCHED THEN UPDATE SET {update} "
        f"WHEN NOT MATCHED AND NOT {gone} THEN INSERT ({names}) VALUES ({values}){others}"
    )


def _patching(table: str, key: Sequence[str], own: Own, patch: Patch, names: Sequence[str]) -> str:
    """Return SQL that changes nothing of the rows but what a patch names; ``names`` are the fields of ``metadata``."""
    same_key = " AND ".join(f"t.{quoted(name)} <=> s.{quoted(name)}" for name in key)
    entries = (
        f"get(s.metadata.elapsed_ns, {place})" if known is None else f"get(t.metadata.elapsed_ns, {known})"
        for place, known in enumerate(patch.elapsed)
    )
    changed = {name: f"s.metadata.{name}" for name in patch.metadata}
    changed["elapsed_ns"] = f"array({', '.join(entries)})"
    values = (f"{sql_text(name)}, {changed.get(name, f't.metadata.{quoted(name)}')}" for name in names)
    updates = [f"t.{quoted(name)} = s.{quoted(name)}" for name in patch.columns]
    updates.append(f"t.metadata = named_struct({', '.join(values)})")
    return (
        f"MERGE INTO {table_names.in_sql(table)} t USING {VIEW} s "
        f"ON {_owned('t', own)} AND {same_key} WHEN MATCHED THEN UPDATE SET {', '.join(updates)}"
    )


def _kept(metadata: DataType | None) -> str | None:
    """Return the ``metadata`` of a replaced row in SQL: ``KEPT`` stays where the new row does not say it."""
    if metadata is None:
        return None
    names = cast("StructType", metadata).names
    values = {name: f"s.metadata.{quoted(name)}" for name in names}
    values |= {name: f"coalesce(s.metadata.{name}, t.metadata.{name})" for name in KEPT if name in names}
    fields = [f"{sql_text(name)}, {value}" for name, value in values.items()]
    return f"named_struct({', '.join(fields)})"


def set_null(spark: SparkSession, table: str, field: str, where: str, transaction: Transaction) -> bool:
    """Make a struct's field null in some rows; see ``Engine.set_null``."""
    name = ".".join(map(quoted, field.split(".")))
    statement = f"UPDATE {table_names.in_sql(table)} SET {name} = NULL WHERE {where}"  # noqa: S608 -- names are quoted
    with _transaction(spark, transaction), _watched(spark) as made:
        retry_conflicts(lambda: spark.sql(statement).collect(), table)
        return made()


@contextmanager
def _transaction(spark: SparkSession, transaction: Transaction | None) -> Iterator[None]:
    """Give SQL's MERGE and DELETE a transaction id, which they take from the session's settings only."""
    if transaction is not None:
        for setting, value in zip(TRANSACTION_SETTINGS, (transaction.app, transaction.version), strict=True):
            spark.conf.set(setting, str(value))
    try:
        yield
    finally:
        if transaction is not None:
            for setting in TRANSACTION_SETTINGS:
                spark.conf.unset(setting)


def delete(spark: SparkSession, table: str, where: str, transaction: Transaction | None = None) -> int | None:
    """Delete rows in one commit; see ``Engine.delete``."""
    statement = f"DELETE FROM {table_names.in_sql(table)} WHERE {where}"  # noqa: S608 -- names are quoted
    with _transaction(spark, transaction), _watched(spark) as made:
        done = retry_conflicts(lambda: spark.sql(statement).collect(), table)
        return int(done[0]["num_affected_rows"]) if done and made() else None


def _owned(alias: str, own: Own) -> str:
    conditions = (
        f"{alias}.{'.'.join(map(quoted, name.split('.')))} = {sql_text(value)}" for name, value in own.items()
    )
    return f"({' AND '.join(conditions)})"


def delete_orphans(
    table: str, own: Own, source: SparkRows, key: Sequence[str], transaction: Transaction | None = None
) -> int | None:
    """Delete the rows for which ``own`` holds and whose key ``source`` has not; see ``Engine.delete_orphans``."""
    frame = source.frame.select(*(column_of(source.frame, name) for name in key))
    frame.createOrReplaceTempView(VIEW)
    same_key = " AND ".join(f"t.{quoted(name)} <=> s.{quoted(name)}" for name in key)
    statement = (
        f"MERGE INTO {table_names.in_sql(table)} t USING {VIEW} s ON {_owned('t', own)} AND {same_key} "
        f"WHEN NOT MATCHED BY SOURCE AND {_owned('t', own)} THEN DELETE"
    )
    spark = frame.sparkSession
    try:
        with _transaction(spark, transaction), _watched(spark) as made:
            done = retry_conflicts(lambda: spark.sql(statement).collect(), table)
            return int(done[0]["num_deleted_rows"]) if done and made() else None
    finally:
        spark.catalog.dropTempView(VIEW)
