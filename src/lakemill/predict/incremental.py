"""What is new in a source: one commit for each slice of it, skipped if it was made before a crash.

Batch jobs and streams share it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Following, Slice, Transaction, opened
from lakemill.engines.relations import Rows
from lakemill.predict.commits import commit, write_quarantine
from lakemill.predict.model_updates import ModelUpdates
from lakemill.predict.progress import check_identity, checkpoint_of, job_identity
from lakemill.predict.rescore import Rescoring
from lakemill.predict.run import Committed, Run
from lakemill.predict.upserts import check_feed, remove_orphans, score_changes

if TYPE_CHECKING:
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.stream_progress import StreamProgress


def following(run: Run, *, every_seconds: float | None = None) -> Following:
    """Return what a run follows.

    Args:
        run: What it needs.
        every_seconds: How often to look for new rows; None ends when all that is there is done.

    Raises:
        ConfigError: ``FEED_DISABLED``.
    """
    config = run.config
    follows_changes = config.source.changes == "upsert"
    if follows_changes:
        check_feed(run)
    return Following(
        run.source.snapshot,
        None if follows_changes else config.source.where,
        follows_changes,
        config.name,
        run.result.run_id,
        checkpoint_of(config),
        config.engine.max_bytes_per_trigger,
        every_seconds,
    )


def is_up_to_date(config: PredictConfig, key: tuple[str, ...]) -> bool:
    """Return whether there is nothing to do for sure, whatever the length of the source's log.

    Starting a stream takes seconds, and more where the log has thousands of commits.

    Args:
        config: The job.
        key: Columns that tell the source's rows apart.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
    """
    checkpoint = checkpoint_of(config)
    if config.rescore != "none" or not table_names.is_path(config.source.table) or checkpoint.damage():
        return False
    known = checkpoint.identity()
    if known is None:
        return False
    check_identity(known, job_identity(config, key))
    finished = checkpoint.finished()
    return finished is not None and DeltaLog(table_names.location(config.source.table)).ends_with(*finished)


def claim(run: Run, checkpoint: Checkpoint) -> bool:
    """Make sure that the checkpoint is this job's; return whether its first snapshot may hold scored rows.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if it was made for something else.
    """
    identity = job_identity(run.config, run.source.key)
    if damage := checkpoint.damage():
        # Its batches cannot be told apart from those of a new start, so it is as good as lost: the keys decide.
        run.tell(f"the checkpoint is damaged ({damage}) and starts anew; what has a prediction is not scored again")
        checkpoint.remove()
    if run.is_new_output and checkpoint.identity() is not None:
        run.tell("the predictions that the checkpoint was made with are gone: it starts anew")
        checkpoint.remove()
    known = checkpoint.identity()
    if known is not None:
        check_identity(known, identity)
        return bool(known.get("has_earlier_rows"))
    has_earlier_rows = not run.is_new_output and not run.predictions().is_empty()
    checkpoint.claim(identity | {"has_earlier_rows": has_earlier_rows})
    return has_earlier_rows


class Slices:
    """What happens with each slice of a source.

    Args:
        run: What it needs.
        progress: Measures a stream; None for a batch job.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
    """

    def __init__(self, run: Run, progress: StreamProgress | None = None) -> None:
        self.run, self.progress = run, progress
        self.checkpoint = checkpoint_of(run.config)
        self.has_earlier_rows = claim(run, self.checkpoint)
        self.models, self.rescoring = ModelUpdates(run), Rescoring()
        self.is_first = True

    def __call__(self, piece: Slice) -> None:
        """Score and commit one slice."""
        self.look_for_models()
        run, config = self.run, self.run.config
        query_id = self.checkpoint.query_id()
        batch_rows = f"metadata.query_id = '{query_id}' AND metadata.batch_id = {piece.batch_id}"
        # Only the first batch of a run can be one that was committed before the last run died.
        if self.is_first and not run.is_new_output and not self._committed(batch_rows).is_empty():
            run.tell(f"batch {piece.batch_id} was committed by the last run already")
        else:
            began = time.perf_counter()
            batch = self._score(self._to_do(piece), piece, query_id)
            run.result.add(batch, piece.batch_id, piece.version)
            run.tell(
                f"batch {piece.batch_id}: committed {batch.rows} rows, {batch.rows_error} with errors, "
                f"source version {piece.version}{self._measures(piece, batch, time.perf_counter() - began)}"
            )
        self.is_first = False
        quarantine = Transaction(f"{config.name}/{query_id}/quarantine", piece.batch_id)
        write_quarantine(run.engine, config, batch_rows, quarantine)

    def look_for_models(self) -> None:
        """Look for new models: before a batch, and while there is none, so that the next one need not wait."""
        self.run = self.models.apply(self.run)

    def rescore(self) -> bool:
        """Score one batch of earlier rows again, if the job wants it; return whether there may be more."""
        return self.rescoring.batch(self.run)

    def _committed(self, condition: str) -> Rows:
        engine = self.run.engine
        return engine.rows(opened(engine, self.run.config.output.table)).where(condition)

    def _measures(self, piece: Slice, batch: Committed, seconds: float) -> str:
        if self.progress is None:
            return ""
        before = None if piece.is_snapshot else self.checkpoint.offset(piece.batch_id - 1).version
        return ", " + self.progress.line(batch, seconds, before, piece.version)

    def _to_do(self, piece: Slice) -> Rows:
        run, source = self.run, self.run.config.source
        if not (self.has_earlier_rows and piece.is_snapshot):
            return piece.rows
        if source.changes == "append":
            return piece.rows.without(run.predictions(), run.source.key)
        if piece.batch_id == 0:
            run.tell("the job's progress is lost: every row is scored again, as any may have changed since")
            if source.deleted == "remove":
                remove_orphans(run, piece.version)
        return piece.rows

    def _score(self, rows: Rows, piece: Slice, query_id: str | None) -> Committed:
        run, config = self.run, self.run.config
        origin: dict[str, Any] = {
            "query_id": query_id,
            "batch_id": piece.batch_id,
            "source_version": piece.version,
        }
        transaction = Transaction(f"{config.name}/{query_id}", piece.batch_id)
        if config.source.changes == "upsert":
            return score_changes(run, rows, transaction, **origin)
        return commit(
            run,
            rows,
            lambda scored: bool(scored.rows) and run.engine.append(scored, config.output.table, transaction),
            **origin,
        )
