"""Scoring again what other models scored: newest rows first, in bounded batches, each one MERGE.

What is left to do is asked of the tables each time, so an interrupted re-score goes on where it was. Rows whose source
row is gone keep their prediction.
"""

from __future__ import annotations

import time

from lakemill.engines.engine import opened
from lakemill.engines.relations import Rows, Scored
from lakemill.engines.sql import all_equal
from lakemill.predict.commits import commit, write_quarantine
from lakemill.predict.run import Run
from lakemill.predict.source import kept_rows

FIRST_ROWS, MOST_ROWS = 1_000, 100_000
BATCH_SECONDS = 30.0
"""New rows wait for a batch of old ones no longer than about this."""

QUERY_ID = "rescore"
"""Stands in ``metadata.query_id`` of rows that were scored again."""


class Rescoring:
    """Brings predictions to the models in use, as far as the job wants it."""

    def __init__(self) -> None:
        self.rows, self.batch_id = FIRST_ROWS, 0
        self.done_for: str | None = None

    def batch(self, run: Run) -> bool:
        """Score one batch again, and return whether there may be more.

        Args:
            run: With the models in use. Nothing else may write in its session meanwhile.

        Raises:
            TooManyErrorsError: the batch had more errors than ``quarantine.max_ratio``; it keeps its predictions.
        """
        version = run.plan.pipeline.version
        if run.config.rescore == "none" or self.done_for == version:
            return False
        began, config, engine = time.perf_counter(), run.config, run.engine
        snapshot = opened(engine, config.source.table)
        source = kept_rows(config, engine, snapshot)
        key = run.source.key
        rows = source.only(outdated(run, source).newest(self.rows, "metadata.source_version", key), key)

        def write(scored: Scored) -> bool:
            output = config.output.table
            return bool(scored.rows) and run.state.commit(
                lambda own: engine.merge(scored, output, key, own, own=run.own)
            )

        done = commit(run, rows, write, query_id=QUERY_ID, batch_id=self.batch_id, source_version=snapshot.version)
        if not done.rows:
            self.done_for = version
            return False
        seconds = time.perf_counter() - began
        run.result.add_rescored(done, self.batch_id)
        run.tell(f"scored {done.rows} earlier rows again, {done.rows_error} with errors, {seconds:.1f} s")
        ours = all_equal({"metadata.run_id": run.result.run_id, "metadata.query_id": QUERY_ID})
        write_quarantine(engine, config, f"{ours} AND metadata.batch_id = {self.batch_id}")
        self.batch_id += 1
        if seconds < BATCH_SECONDS / 2:
            self.rows = min(MOST_ROWS, 2 * self.rows)
        return True


def outdated(run: Run, source: Rows) -> Rows:
    """Return keys and ``metadata.source_version`` of predictions that other models made and whose row is there."""
    others = run.predictions(f"metadata.pipeline_version <> '{run.plan.pipeline.version}'")
    return others.select((*run.source.key, "metadata.source_version")).only(source, run.source.key)
