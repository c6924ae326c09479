"""How a job stands: what it did last, how far behind its source it is, and its errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Engine, location_of, opened
from lakemill.engines.relations import Snapshot
from lakemill.engines.sql import all_equal
from lakemill.predict.locks import running
from lakemill.predict.needs import predict_needs
from lakemill.predict.resuming import done_of, truth_in
from lakemill.predict.run import POSITION_COLUMNS, own_rows, state_of
from lakemill.predict.source import kept_rows

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession

LAST_RUNS = 5


@dataclass(frozen=True)
class JobStatus:
    """A job's state.

    Args:
        job: Its name.
        table: The predictions.
        table_version: Their newest version.
        source_version: The source's newest version.
        scored_version: The version up to which the predictions say that the source is scored; None if they do not.
        lag_versions: Commits of the source after it.
        lag_rows: Rows that they added; None if the log does not say, or they changed or removed rows too.
        source_rows: Rows of the source, as it is now, that the job scores.
        is_source_replaced: Whether the source is another table than the one that the predictions are of.
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
    source_rows: int
    is_source_replaced: bool
    rows: int
    rows_error: int
    pipeline_versions: dict[str, int]
    running: str | None
    runs: list[dict[str, Any]]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return asdict(self)

    def summary(self) -> str:
        """Return the state in a few lines."""
        if self.is_source_replaced:
            lag = "the source is another table than the one that the predictions are of"
        elif self.scored_version is None:
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
            f"{self.table} (version {self.table_version}): {self.rows:,} predictions of {self.source_rows:,} rows, "
            f"{self.rows_error:,} with errors",
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
    for table in (config.output.table, config.source.table):
        table_names.check_path(table)
    engine = open_engine(spark, predict_needs(config), config.engine)
    output, source = opened(engine, config.output.table), opened(engine, config.source.table)
    columns = ("metadata.pipeline_version", "error.code", *POSITION_COLUMNS)
    state = state_of(engine, config)
    counts = engine.rows(output).where(own_rows(config)).tally(columns)
    truth = truth_in(counts)
    done = done_of(config, state, truth)
    is_replaced = bool(truth.tables - {source.id})
    versions = Counter[str]()
    for count in counts:
        versions[count["metadata.pipeline_version"]] += count["rows"]
    scored_version = None if done is None or is_replaced else done.version - 1
    return JobStatus(
        config.name,
        config.output.table,
        output.version,
        source.version,
        scored_version,
        None if scored_version is None else source.version - scored_version,
        _rows_behind(source, scored_version),
        kept_rows(config, engine, source).count(),
        is_replaced,
        versions.total(),
        sum(count["rows"] for count in counts if count["error.code"] is not None),
        dict(versions.most_common()),
        running(config),
        _runs(config, engine),
    )


def _rows_behind(source: Snapshot, scored_version: int | None) -> int | None:
    if scored_version is None:
        return None
    behind = [commit.rows for commit in DeltaLog(location_of(source)).after(scored_version)]
    if len(behind) < source.version - scored_version:
        return None  # the log was cleaned up
    return None if None in behind else sum(rows for rows in behind if rows is not None)


def _runs(config: PredictConfig, engine: Engine) -> list[dict[str, Any]]:
    runs = engine.snapshot(table_names.sibling(config.output.table, "_runs"))
    if runs is None:
        return []
    kept = engine.rows(runs).where(all_equal({"job": config.name})).newest(LAST_RUNS, "started", ["run_id"])
    rows: list[dict[str, Any]] = kept.to_arrow().to_pylist()
    return rows
