"""How a job stands: what it did last, how far behind its source it is, and its errors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.delta_log import SourceLog
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.spark.session import get_session
from lakemill.engines.sql import sql_text
from lakemill.predict.locks import running

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LAST_RUNS = 5


@dataclass(frozen=True)
class JobStatus:
    """A job's state.

    Args:
        job: Its name.
        table: The predictions.
        table_version: Their newest version.
        source_version: The source's newest version.
        scored_version: The version up to which incremental runs have scored; None without a checkpoint.
        lag_versions: Commits of the source after it.
        lag_rows: Rows in their new files; None if the log does not say.
        rows: Predictions of this job.
        rows_error: Of those, rows with an error.
        pipeline_versions: How many predictions each version of the pipeline made.
        running: Process and host of a run that is going on, else None.
        runs: The last runs, newest first, as ``<output>_runs`` has them.
    """

    job: str
    table: str
    table_version: int
    source_version: int
    scored_version: int | None
    lag_versions: int | None
    lag_rows: int | None
    rows: int
    rows_error: int
    pipeline_versions: dict[str, int]
    running: str | None
    runs: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    def summary(self) -> str:
        """Return the state in a few lines."""
        if self.scored_version is None:
            lag = f"nothing scored incrementally yet; the source is at version {self.source_version}"
        elif not self.lag_versions:
            lag = f"up to date with source version {self.source_version}"
        else:
            rows = "" if self.lag_rows is None else f", {self.lag_rows:,} rows"
            lag = (
                f"scored up to source version {self.scored_version} of {self.source_version} "
                f"({self.lag_versions} commits{rows} behind)"
            )
        lines = [
            f"{self.job}: {lag}",
            f"{self.table} (version {self.table_version}): {self.rows:,} predictions, {self.rows_error:,} with errors",
            *(f"pipeline {version}: {rows:,} predictions" for version, rows in self.pipeline_versions.items()),
            *([f"running now: {self.running}"] if self.running else []),
            *(_line(run) for run in self.runs),
        ]
        return "\n".join(lines)


def _line(run: dict[str, Any]) -> str:
    started: datetime = run["started"]
    failed = f" [{run['code']}]" if run["code"] else ""
    return (
        f"{started:%Y-%m-%d %H:%M:%S} {run['mode']} {run['run_id']} {run['status']}{failed}: "
        f"{run['rows']:,} rows, {run['rows_error']:,} with errors, {run['seconds']:.1f} s"
    )


def job_status(config: PredictConfig, spark: SparkSession | None = None) -> JobStatus:
    """Return how a job stands; nothing is written.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if the source or the predictions are not there.
    """
    session = spark or get_session(config.name)
    try:
        return _status(config, session)
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error


def _status(config: PredictConfig, spark: SparkSession) -> JobStatus:
    from pyspark.sql import functions as fn

    own = f"metadata.job = {sql_text(config.name)}"
    counts = (
        tables.read(spark, config.output.table)
        .where(own)
        .groupBy("metadata.pipeline_version")
        .agg(fn.count("*").alias("rows"), fn.count("error").alias("rows_error"))
        .orderBy(fn.desc("rows"))
        .collect()
    )
    tables.read(spark, config.source.table)
    source_version = tables.version(spark, config.source.table)
    scored_version = Checkpoint.of(config).scored_version()
    behind = None
    if scored_version is not None:
        log = SourceLog.of(spark, config.source.table)
        behind = [commit.rows for commit in log.after(scored_version)] if scored_version < source_version else []
    known = None if behind is None or None in behind else sum(rows for rows in behind if rows is not None)
    return JobStatus(
        config.name,
        config.output.table,
        tables.version(spark, config.output.table),
        source_version,
        scored_version,
        None if scored_version is None else source_version - scored_version,
        known,
        sum(row["rows"] for row in counts),
        sum(row["rows_error"] for row in counts),
        {row["pipeline_version"]: row["rows"] for row in counts},
        running(config),
        _runs(config, spark),
    )


def _runs(config: PredictConfig, spark: SparkSession) -> list[dict[str, Any]]:
    rows = tables.find(spark, table_names.sibling(config.output.table, "_runs"))
    if rows is None:
        return []
    kept = rows.where(f"job = {sql_text(config.name)}").orderBy("started", ascending=False).limit(LAST_RUNS)
    return [row.asDict() for row in kept.collect()]
