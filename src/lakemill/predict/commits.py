"""One batch, one table, one commit: scored rows are kept once, judged, and written to Delta in a single transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.spark.schemas import lost_fields
from lakemill_udfs.errors import TableError, TooManyErrorsError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession
    from pyspark.sql.types import StructType

logger = logging.getLogger(__name__)

ROWS_PER_FILE = 1_000_000


@dataclass(frozen=True)
class Committed:
    """What one batch came to.

    Args:
        rows: Rows written.
        rows_error: Of those, rows with an error.
        tasks: What each task measured.
    """

    rows: int = 0
    rows_error: int = 0
    tasks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


def commit(
    scored: DataFrame,
    config: PredictConfig,
    write_options: Mapping[str, str],
    *,
    mode: str = "append",
    metrics: bool = True,
    before_commit: Any = None,
) -> Committed:
    """Run the inference once, judge the share of errors, and write the rows in one Delta commit.

    Args:
        scored: Result of ``predict_batches``; nothing has run yet.
        config: The job.
        write_options: Delta's, for example ``txnAppId`` and ``txnVersion``.
        mode: ``append`` or ``overwrite``.
        metrics: Whether ``scored`` has ``_task``.
        before_commit: Called when the batch is judged and about to be written.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``; nothing was written.
        RunError: ``COMMIT_CONFLICT``.
    """
    with judged(scored, config, metrics=metrics) as (rows, result):
        if before_commit is not None:
            before_commit()
        if result.rows or mode == "overwrite":
            writer = rows.coalesce(1 + result.rows // ROWS_PER_FILE).write.mode(mode).options(**write_options)
            retry_conflicts(lambda: tables.save(writer, config.output.table), config.output.table)
    return result


@contextmanager
def judged(scored: DataFrame, config: PredictConfig, *, metrics: bool = True) -> Iterator[tuple[DataFrame, Committed]]:
    """Run the inference once, keep its rows while the context lasts, and judge the share of errors.

    Args:
        scored: Result of ``predict_batches``; nothing has run yet.
        config: The job.
        metrics: Whether ``scored`` has ``_task``.

    Yields:
        The rows to write, and what they come to.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``.
    """
    scored = scored.persist()
    try:
        total = _total(scored, config, metrics=metrics)
        result = Committed(
            total["rows"], total["rows_error"], tuple(task.asDict() for task in total["tasks"]) if metrics else ()
        )
        judge(result, config.quarantine.max_ratio)
        yield scored.drop("_task"), result
    finally:
        scored.unpersist()


def _total(scored: DataFrame, config: PredictConfig, *, metrics: bool) -> Row:
    """Run the inference; return the numbers of rows and of errors, and what the tasks measured."""
    from pyspark.sql import functions as fn

    tasks = [fn.collect_list("_task").alias("tasks")] if metrics else []
    with ThreadPoolExecutor(1) as side:
        # To look a transaction's id up, a write needs the table's whole state, most of a second's work for Delta even
        # if the table is empty. Asked for now, it is there when the rows are. If this fails, the write says why.
        side.submit(tables.detail, scored.sparkSession, config.output.table)
        total = scored.agg(fn.count("*").alias("rows"), fn.count("error").alias("rows_error"), *tasks).first()
    assert total is not None  # noqa: S101 -- an aggregate without groups has exactly one row
    return total


def judge(batch: Committed, max_ratio: float | None) -> None:
    """Stop a batch that is failing wholesale.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS`` if the share of rows with errors is above ``max_ratio``.
    """
    if max_ratio is not None and batch.rows and batch.rows_error / batch.rows > max_ratio:
        raise TooManyErrorsError(
            "TOO_MANY_ERRORS",
            f"{batch.rows_error} of {batch.rows} rows have errors ({batch.rows_error / batch.rows:.1%}); "
            f"quarantine.max_ratio allows {max_ratio:.1%}. Nothing of this batch was written.",
            hint="`lakemill predict --limit 20` shows the errors; mend the source or raise the ratio.",
        )


def prepare_output(spark: SparkSession, table: str, schema: StructType, *, replace: bool) -> bool:
    """Make the output if there is none, and refuse one that the rows do not fit, before anything is scored.

    Outputs and checks that a new model or pipeline has are added to a table that fits otherwise; earlier rows have null
    there.

    Args:
        spark: The session.
        table: The output.
        schema: Of the rows to come.
        replace: The table is overwritten anyway, so its schema does not matter.

    Returns:
        Whether the table was made.

    Raises:
        TableError: ``OUTPUT_SCHEMA`` if the table has other columns, ``OUTPUT_NOT_WRITABLE`` if it cannot be made.
    """
    rows = tables.find(spark, table)
    if rows is not None:
        if not replace:
            check_output(table, rows.schema, schema)
            if lost_fields(schema, rows.schema):
                _add_new_fields(spark, table, schema)
        return False
    try:
        # Two jobs may make it at the same time.
        retry_conflicts(lambda: tables.make(spark, table, schema), table)
    except SPARK_FAILURES as error:
        raise TableError(
            "OUTPUT_NOT_WRITABLE",
            f"the output '{table}' cannot be made: {spark_failure(error).message}",
            hint="check its path and permissions.",
        ) from error
    return True


def check_output(table: str, present: StructType, wanted: StructType) -> None:
    """Refuse an output that rows do not fit.

    Args:
        table: Its name, for the message.
        present: Its schema.
        wanted: Of the rows to come.

    Raises:
        TableError: ``OUTPUT_SCHEMA``.
    """
    there = {field.name: field.dataType.simpleString() for field in present}
    asked = {field.name: field.dataType.simpleString() for field in wanted}
    if there.keys() != asked.keys() or lost_fields(present, wanted):
        raise TableError(
            "OUTPUT_SCHEMA",
            f"the output '{table}' has another schema: {_difference(asked, there)}.",
            hint="mode: full replaces the table; or give the new predictions a table of their own.",
        )


def _add_new_fields(spark: SparkSession, table: str, schema: StructType) -> None:
    # By an empty write: a field's metadata, which holds its tensor's shape, comes along.
    writer = spark.createDataFrame([], schema).write.mode("append").option("mergeSchema", "true")
    retry_conflicts(lambda: tables.save(writer, table), table)


def _difference(wanted: Mapping[str, str], present: Mapping[str, str]) -> str:
    missing = [name for name in wanted if name not in present]
    extra = [name for name in present if name not in wanted]
    changed = [
        f"{name} is {present[name]}, expected {wanted[name]}"
        for name in wanted
        if name in present and present[name] != wanted[name]
    ]
    parts = (
        [f"it lacks {', '.join(missing)}"] * bool(missing)
        + [f"it has {', '.join(extra)} as well"] * bool(extra)
        + changed
    )
    return "; ".join(parts)


def write_quarantine(
    spark: SparkSession, config: PredictConfig, condition: str, write_options: Mapping[str, str]
) -> None:
    """Copy the committed rows with errors into the quarantine table, with a transaction of their own.

    Args:
        spark: The session.
        config: The job; without ``quarantine.table`` nothing is done.
        condition: SQL that selects the batch in the predictions.
        write_options: Delta's transaction ids.
    """
    if config.quarantine.table is not None:
        rows = tables.read(spark, config.output.table).where(condition).where("error IS NOT NULL")
        tables.save(rows.write.mode("append").options(**write_options), config.quarantine.table)


def now_utc() -> datetime:
    """Return the time in UTC."""
    from datetime import UTC

    return datetime.now(UTC)
