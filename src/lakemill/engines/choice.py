"""Which engine a job runs on, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lakemill.config.base import EngineChoice
from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.local.able import missing
from lakemill.engines.needs import Needs
from lakemill.engines.spark.presence import is_installed, spark_here
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import local_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill.engines.engine import Engine

# SparkSession: the type for the rooms above.
__all__ = ["AUTO", "Chosen", "SparkSession", "choose", "open_engine", "writer_beside"]

AUTO = EngineChoice()


@dataclass(frozen=True)
class Chosen:
    """An engine, and why it is that one.

    Args:
        name: ``local`` or ``spark``.
        reason: In words.
    """

    name: Literal["local", "spark"]
    reason: str

    def line(self) -> str:
        """Return it in one line."""
        return f"engine: {self.name}, {self.reason}"


def choose(spark: SparkSession | None, needs: Needs, wanted: EngineChoice = AUTO) -> Chosen:
    """Return the engine that a job runs on; none is started.

    ``auto`` is Spark where a session was given or is active, or something starts one for us, and for what the local
    engine cannot do, if Spark is installed; else local.

    Args:
        spark: The session that the caller was given.
        needs: Of the job.
        wanted: What it says itself.

    Raises:
        ConfigError: ``ENGINE_LOCAL`` if the local engine is asked for, or the only one here, and cannot do the job.
    """
    if wanted.name == "local" and spark is not None:
        raise ConfigError(
            "ENGINE_LOCAL",
            "a Spark session was given, and the job asks for the local engine.",
            hint="engine: {name: spark}, or leave the session out.",
        )
    if wanted.name == "spark":
        return Chosen("spark", "as the job says")
    if wanted.name == "auto" and (reason := "a session was given" if spark is not None else spark_here()) is not None:
        return Chosen("spark", f"as {reason}")
    problem = missing(needs)
    if problem is None:
        return Chosen("local", "as the job says" if wanted.name == "local" else "as nothing here needs Spark")
    if wanted.name == "local" or not is_installed():
        raise problem
    return Chosen("spark", f"as {problem.message.rstrip('.')}")


def open_engine(
    spark: SparkSession | None,
    needs: Needs,
    wanted: EngineChoice = AUTO,
    tell: Callable[[str], None] | None = None,
) -> Engine:
    """Return the engine that a job runs on; see ``choose``.

    Args:
        spark: The session that the caller was given; without one, Spark takes the active session or a new one.
        needs: Of the job.
        wanted: What it says itself.
        tell: Gets a line that says which engine it is, and why, and one every few seconds of long work.

    Raises:
        ConfigError: ``ENGINE_LOCAL``.
        SetupError: as ``get_session``.
    """
    chosen = choose(spark, needs, wanted)
    if tell is not None:
        tell(chosen.line())
    if chosen.name == "local":
        from lakemill.engines.local.engine import LocalEngine

        return LocalEngine(forced=None if wanted.workers == "auto" else wanted.workers, tell=tell)
    from lakemill.engines.spark.engine import SparkEngine

    return SparkEngine.open(spark, needs.job, tell)


def writer_beside(engine: Engine, table: str) -> Engine:
    """Return the engine for a few rows that the driver holds, into a table that lies beside ``table``.

    Where that is a table on this machine's disk, the local engine appends them in milliseconds; a job of Spark's takes
    most of a second.
    """
    here = table_names.is_path(table) and local_path(location := table_names.location(table)) is not None
    if engine.name == "local" or not here or DeltaLog(location).newest() is None:
        return engine
    from lakemill.engines.local.engine import LocalEngine

    return LocalEngine()
