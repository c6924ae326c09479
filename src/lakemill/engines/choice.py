"""Which engine a job runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill.engines.engine import Engine

__all__ = ["SparkSession", "open_engine"]  # the session's type for the rooms above, which know no pyspark


def open_engine(spark: SparkSession | None, job: str) -> Engine:
    """Return the engine of a session; without one, of the active session or a new one.

    Args:
        spark: The session that the caller was given.
        job: Name of the job, for a session made here.

    Raises:
        SetupError: as ``get_session``.
    """
    from lakemill.engines.spark.engine import SparkEngine

    return SparkEngine.open(spark, job)
