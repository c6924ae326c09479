"""How Spark reads a source: cut by compute, not by bytes, and blobs in small batches."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pyarrow import types

from lakemill.engines.schemas import fields_of
from lakemill.engines.spark.blob_tables import BLOB_READ_SETTINGS
from lakemill.engines.spark.session import task_slots

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from lakemill_udfs.plan import PredictPlan

TASKS_PER_CORE = 8  # with fewer, one slow task at the end of each commit leaves the other cores idle
TASKS_PER_CORE_OF_NUMBERS = 2  # they take equally long, and a task costs as much as thousands of such rows
SMALLEST_SPLIT_BYTES, LARGEST_SPLIT_BYTES = 2**20, 64 * 2**20
NO_LIMIT = 2**31 - 1
"""Of an Arrow batch's bytes: Spark looks at no size then. With a limit it adds up all columns' after each row."""


def reads_blobs(schema: pa.Schema, plan: PredictPlan) -> bool:
    """Return whether a plan reads columns of bytes, such as images: rows of KB to MB."""
    columns = fields_of(schema)
    return any(types.is_binary(columns[name].type) for name in plan.source_columns)


def is_numbers(schema: pa.Schema, names: Collection[str]) -> bool:
    """Return whether columns are single numbers: rows of them are small, and take equally long."""
    columns = fields_of(schema)
    kinds = [columns[name].type for name in names]
    return bool(kinds) and all(types.is_integer(kind) or types.is_floating(kind) for kind in kinds)


def scan_settings(spark: SparkSession, schema: pa.Schema, plan: PredictPlan) -> dict[str, tuple[str, str]]:
    """Return Spark's settings for reading a source, each with its value and the reason for it.

    Args:
        spark: Says how many tasks run at once.
        schema: Of the source.
        plan: Says which of its columns are read.
    """
    tasks = task_slots(spark)
    each = TASKS_PER_CORE_OF_NUMBERS if is_numbers(schema, plan.input_columns) else TASKS_PER_CORE
    settings = {
        "spark.sql.files.minPartitionNum": (
            str(each * tasks),
            f"{each} tasks for each of {tasks} cores, so that none waits for a slow one at the end",
        ),
        "spark.sql.files.maxPartitionBytes": (str(LARGEST_SPLIT_BYTES), "tasks even in cost, not in bytes"),
        "spark.sql.files.openCostInBytes": (str(SMALLEST_SPLIT_BYTES), "small files share tasks"),
    }
    if is_numbers(schema, plan.source_columns):
        settings["spark.sql.execution.arrow.maxBytesPerBatch"] = (str(NO_LIMIT), "rows of numbers are small")
    if reads_blobs(schema, plan):
        blobs = "the default is thousands of rows, which are gigabytes where a row is an image"
        settings |= {name: (value, blobs) for name, value in BLOB_READ_SETTINGS.items()}
        settings["spark.sql.execution.arrow.maxRecordsPerBatch"] = (
            str(plan.batch_rows),
            "the rows of a model batch, so that none are copied together",
        )
    return settings
