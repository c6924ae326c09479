"""Compaction and clean-up of tables. Neither breaks a running job, nor time travel within Delta's retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import optimize_table
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.spark.session import get_session, session_with

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LISTING_TASKS = 16  # Spark's default starts thousands of tasks, which take minutes on a few cores


def job_tables(config: PredictConfig) -> list[str]:
    """Return the tables that a predict job writes."""
    output = config.output.table
    quarantine = [config.quarantine.table] if config.quarantine.table else []
    return [output, *quarantine, *(table_names.sibling(output, suffix) for suffix in ("_runs", "_tasks"))]


def optimize_tables(names: Sequence[str], spark: SparkSession | None = None) -> dict[str, dict[str, int]]:
    """Compact tables; one that holds blobs keeps its layout, and one that is not there is left out.

    A running job's commit that conflicts is done again (``conflicts``), and a stream reads nothing twice: compaction
    is marked as no change.

    Args:
        names: Paths or catalog names.
        spark: The session; by default the active one, or a new one.

    Returns:
        ``files_added``, ``files_removed`` and the ``version`` of each.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is none of them.
        RunError: ``COMMIT_CONFLICT``.
    """
    session = spark or get_session()
    try:
        return {name: _optimize(session, name) for name in _there(session, names)}
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error


def _optimize(spark: SparkSession, table: str) -> dict[str, int]:
    from pyspark.sql.types import BinaryType

    if any(isinstance(field.dataType, BinaryType) for field in tables.read(spark, table).schema):
        return optimize_table(table, spark)
    statement = f"OPTIMIZE {tables.sql_name(table)}"
    metrics = retry_conflicts(lambda: spark.sql(statement).collect(), table)[0]["metrics"]
    return {
        "files_added": metrics["numFilesAdded"],
        "files_removed": metrics["numFilesRemoved"],
        "version": tables.version(spark, table),
    }


def vacuum_tables(names: Sequence[str], spark: SparkSession | None = None) -> dict[str, dict[str, int]]:
    """Delete files that no version within the table's retention needs; Delta's default is 7 days.

    There is no shorter retention to ask for: it would take files from running jobs. A longer one, for time travel, is
    the table's property ``delta.deletedFileRetentionDuration``.

    Args:
        names: Paths or catalog names.
        spark: The session; by default the active one, or a new one.

    Returns:
        The ``version`` of each.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is none of them.
    """
    given = spark or get_session()
    tasks = {"spark.sql.sources.parallelPartitionDiscovery.parallelism": str(LISTING_TASKS)}
    session = session_with(given, tasks)
    facts = {}
    try:
        for name in _there(session, names):
            session.sql(f"VACUUM {tables.sql_name(name)}").collect()
            facts[name] = {"version": tables.version(session, name)}
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error
    return facts


def _there(spark: SparkSession, names: Sequence[str]) -> list[str]:
    there = [name for name in names if tables.exists(spark, name)]
    if not there:
        tables.read(spark, names[0])
    return there
