"""Scoring again what other models scored: newest rows first, in bounded batches, each one MERGE.

What is left to do is asked of the tables each time, so an interrupted re-score goes on where it was. Rows whose source
row is gone keep their prediction. Where only challengers of a shadow changed, their columns alone are made anew.
"""

from __future__ import annotations

import time
from dataclasses import replace

from lakemill.engines.engine import opened
from lakemill.engines.relations import Rows, Scored
from lakemill.engines.sql import all_equal, sql_text
from lakemill.predict.challengers import Remade, remade
from lakemill.predict.commits import commit
from lakemill.predict.quarantine import write_quarantine
from lakemill.predict.run import Origin, Run
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
        counted = run.predictions(f"metadata.pipeline_version <> '{version}'").tally(["metadata.pipeline_version"])
        earlier = [count["metadata.pipeline_version"] for count in counted]
        for part in remade(run.config, run.plan, earlier):
            if self._batch(run, part):
                return True
        self.done_for = version
        return False

    def _batch(self, run: Run, part: Remade) -> bool:
        """Score one batch of a part again; return whether there was one."""
        began, config, engine, key = time.perf_counter(), run.config, run.engine, run.source.key
        snapshot = opened(engine, config.source.table)
        source = kept_rows(config, engine, snapshot)
        rows = source.only(outdated(run, part, source).newest(self.rows, "metadata.source_version", key), key)

        def write(scored: Scored) -> bool:
            output = config.output.table
            return bool(scored.rows) and run.state.commit(
                lambda own: engine.merge(scored, output, key, own, own=run.own, patch=part.patch)
            )

        origin: Origin = {"query_id": QUERY_ID, "batch_id": self.batch_id, "source_version": snapshot.version}
        done = commit(_scoring(run, part), rows, write, **origin)
        if not done.rows:
            return False
        seconds = time.perf_counter() - began
        run.result.add_rescored(done, self.batch_id)
        if part.challengers is None:
            run.tell(f"scored {done.rows} earlier rows again, {done.rows_error} with errors, {seconds:.1f} s")
            ours = all_equal({"metadata.run_id": run.result.run_id, "metadata.query_id": QUERY_ID})
            write_quarantine(engine, config, f"{ours} AND metadata.batch_id = {self.batch_id}")
        else:
            named = ", ".join(f"out_{name}" for name in part.challengers)
            run.tell(f"scored {done.rows} earlier rows again for {named} alone, {seconds:.1f} s")
        self.batch_id += 1
        if seconds < BATCH_SECONDS / 2:
            self.rows = min(MOST_ROWS, 2 * self.rows)
        return True


def _scoring(run: Run, part: Remade) -> Run:
    """Return the run that scores a part."""
    if part.challengers is None:
        return run
    plan = replace(run.plan, challengers=part.challengers, passthrough=run.source.key)
    return replace(run, plan=plan, config=run.config.model_copy(update={"deduplicate": None}))


def outdated(run: Run, part: Remade, source: Rows) -> Rows:
    """Return keys and ``metadata.source_version`` of the predictions of a part whose row is there."""
    versions = ", ".join(map(sql_text, part.versions))
    others = run.predictions(f"metadata.pipeline_version IN ({versions})")
    return others.select((*run.source.key, "metadata.source_version")).only(source, run.source.key)
