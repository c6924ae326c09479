"""What a predict job would score now, from the source's log alone: no data is read."""

from __future__ import annotations

from lakemill.config.predict import PredictConfig
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Engine, opened
from lakemill.engines.relations import Snapshot
from lakemill.pipelines.plan_report import Waiting
from lakemill.predict.progress import checkpoint_of


def waiting(engine: Engine, config: PredictConfig, source: Snapshot) -> Waiting:
    """Return what a job would score now.

    Args:
        engine: Where the job runs.
        config: The job.
        source: Its source, at the version asked for.
    """
    newest = opened(engine, config.source.table)
    note = "at most: 'where' leaves some out" if config.source.where else None
    if config.mode == "incremental":
        checkpoint = checkpoint_of(config)
        last = checkpoint.last_batch()
        if last is not None:
            return _since(checkpoint.offset(last).version, config, newest, note)
        if engine.snapshot(config.output.table) is not None:
            note = "at most: rows that this job has scored are left out by their key"
    rows = engine.rows(source).count()  # from the files' statistics: they are not read
    if config.source.version is not None:
        return Waiting(config.mode, rows, None, None, None, newest.version, note)
    files, size = source.size
    return Waiting(config.mode, rows, files, size, None, newest.version, note)


def _since(done: int, config: PredictConfig, newest: Snapshot, note: str | None) -> Waiting:
    commits = [commit for commit in DeltaLog(newest.location).after(done) if commit.version <= newest.version]
    counts = [commit.rows for commit in commits]
    rows = None if None in counts else sum(count for count in counts if count is not None)
    files, size = sum(commit.files for commit in commits), sum(commit.bytes for commit in commits)
    return Waiting(config.mode, rows, files, size, done, newest.version, note)
