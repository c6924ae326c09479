"""The source of a predict job: its rows, its key, and the session settings that read it well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import BLOB_READ_SETTINGS
from lakemill.engines.spark.schemas import spark_fields
from lakemill_udfs.errors import ConfigError, TableError
from lakemill_udfs.plan import PredictPlan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

TASKS_PER_CORE = 8  # with fewer, one slow task at the end of each commit leaves the other cores idle
SMALLEST_SPLIT_BYTES, LARGEST_SPLIT_BYTES = 2**20, 64 * 2**20


@dataclass(frozen=True)
class Source:
    """An opened source.

    Args:
        rows: The table at the version asked for, filtered.
        key: Columns that tell rows apart.
        properties: The table's.
    """

    rows: DataFrame
    key: tuple[str, ...]
    properties: Mapping[str, str]


def open_source(config: PredictConfig, spark: SparkSession) -> Source:
    """Open the source table and check what is said of it.

    Raises:
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``, ``COLUMN_MISSING``.
        ConfigError: ``WHERE_INVALID`` if the predicate does not parse or does not fit, ``KEY_MISSING`` without a key.
    """
    rows = tables.read(spark, config.source.table, config.source.version)
    for problem in source_problems(config, rows.columns):
        raise problem
    properties = {} if config.limits.allowed_roots else tables.detail(spark, config.source.table)["properties"]
    return Source(tables.filtered(rows, config.source.where), source_key(config, rows.columns), properties)


def source_key(config: PredictConfig, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that tell rows apart: those named, or ``path``."""
    return config.source.key or (("path",) if "path" in columns else ())


def passed_columns(config: PredictConfig, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the source that stand in the predictions too: key, carried ones, groups.

    Args:
        config: The job.
        columns: Of the source.
    """
    return (*source_key(config, columns), *config.source.carried, *config.engine.group_by)


def source_problems(config: PredictConfig, columns: Sequence[str]) -> Iterator[ConfigError]:
    """Yield what is wrong with the columns that a job names.

    Args:
        config: The job.
        columns: Of the source.
    """
    table, key = config.source.table, source_key(config, columns)
    if not key:
        yield ConfigError(
            "KEY_MISSING",
            f"source '{table}' has no column 'path', so its key must be named; it has: {', '.join(columns)}.",
            hint="source: {key: [id]}, or --key id",
        )
    for name in (*key, *config.source.carried, *config.engine.group_by):
        if name not in columns:
            yield TableError(
                "COLUMN_MISSING",
                f"source '{table}' has no column '{name}'; it has: {', '.join(columns)}.",
                hint="source.key, source.columns and engine.group_by name columns of the source.",
            )


def tune_scan(session: SparkSession, schema: StructType, plan: PredictPlan) -> None:
    """Let a session of its own cut the scan by compute, not by bytes, and hand blobs over in small batches.

    Args:
        session: Reads the source and nothing else.
        schema: Of the source.
        plan: Says which of its columns are read.
    """
    for name, (value, _) in scan_settings(session, schema, plan).items():
        session.conf.set(name, value)


def scan_settings(spark: SparkSession, schema: StructType, plan: PredictPlan) -> dict[str, tuple[str, str]]:
    """Return Spark's settings for reading a source, each with its value and the reason for it.

    Args:
        spark: Says how many tasks run at once.
        schema: Of the source.
        plan: Says which of its columns are read.
    """
    from pyspark.sql.types import BinaryType

    from lakemill.engines.spark.session import task_slots

    tasks = task_slots(spark)
    settings = {
        "spark.sql.files.minPartitionNum": (
            str(TASKS_PER_CORE * tasks),
            f"{TASKS_PER_CORE} tasks for each of {tasks} cores, so that none waits for a slow one at the end",
        ),
        "spark.sql.files.maxPartitionBytes": (str(LARGEST_SPLIT_BYTES), "tasks even in cost, not in bytes"),
        "spark.sql.files.openCostInBytes": (str(SMALLEST_SPLIT_BYTES), "small files share tasks"),
    }
    columns = spark_fields(schema)
    if any(isinstance(columns[name].dataType, BinaryType) for name in plan.source_columns):
        blobs = "the default is thousands of rows, which are gigabytes where a row is an image"
        settings |= {name: (value, blobs) for name, value in BLOB_READ_SETTINGS.items()}
        settings["spark.sql.execution.arrow.maxRecordsPerBatch"] = (
            str(plan.batch_rows),
            "the rows of a model batch, so that none are copied together",
        )
    return settings
