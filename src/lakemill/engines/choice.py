"""Which engine a job runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lakemill_udfs.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill.engines.engine import Engine

__all__ = ["EngineName", "SparkSession", "open_engine"]  # the session's type for the rooms above, which know no pyspark

EngineName = Literal["auto", "local", "spark"]


def open_engine(spark: SparkSession | None, job: str, name: EngineName = "auto") -> Engine:
    """Return the engine that a job asks for; ``auto`` is Spark.

    Args:
        spark: The session that the caller was given; without one, the active session or a new one.
        job: Name of the job, for a session made here.
        name: ``local`` runs without Java, on this machine alone.

    Raises:
        ConfigError: ``ENGINE_LOCAL`` if a session is given and the local engine asked for.
        SetupError: as ``get_session``.
    """
    if name == "local":
        if spark is not None:
            raise ConfigError(
                "ENGINE_LOCAL",
                "a Spark session was given, and the job asks for the local engine.",
                hint="engine: {name: spark}, or leave the session out.",
            )
        from lakemill.engines.local.engine import LocalEngine

        return LocalEngine()
    from lakemill.engines.spark.engine import SparkEngine

    return SparkEngine.open(spark, job)
