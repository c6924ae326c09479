"""Scoring again what other models scored: newest rows first, in bounded batches, each one MERGE.

What is left to do is asked of the tables each time, so an interrupted re-score goes on where it was. Rows whose source
row is gone keep their prediction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lakemill.engines.spark import tables
from lakemill.engines.spark.merge import merge
from lakemill.engines.sql import sql_text
from lakemill.predict.commits import write_quarantine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakemill.predict.run import Run

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
        began, config, key = time.perf_counter(), run.config, list(run.source.key)
        source_version = tables.version(run.spark, config.source.table)
        source = tables.filtered(tables.read(run.spark, config.source.table, source_version), config.source.where)
        rows = source.join(outdated(run, source).limit(self.rows).select(*key), on=key, how="left_semi")
        scored = run.scored(rows, query_id=QUERY_ID, batch_id=self.batch_id, source_version=source_version)
        done = merge(scored, config, key, {})
        if not done.rows:
            self.done_for = version
            return False
        seconds = time.perf_counter() - began
        run.result.add_rescored(done, self.batch_id)
        run.tell(f"scored {done.rows} earlier rows again, {done.rows_error} with errors, {seconds:.1f} s")
        ours = f"metadata.run_id = '{run.result.run_id}' AND metadata.query_id = '{QUERY_ID}'"
        write_quarantine(run.spark, config, f"{ours} AND metadata.batch_id = {self.batch_id}", {})
        self.batch_id += 1
        if seconds < BATCH_SECONDS / 2:
            self.rows = min(MOST_ROWS, 2 * self.rows)
        return True


def outdated(run: Run, source: DataFrame) -> DataFrame:
    """Return the job's predictions that other models made and whose source row is there, newest first."""
    from pyspark.sql import functions as fn

    version, key = run.plan.pipeline.version, list(run.source.key)
    ours = tables.read(run.spark, run.config.output.table).where(f"metadata.job = {sql_text(run.config.name)}")
    return (
        ours.where(f"metadata.pipeline_version <> '{version}'")
        .select(*key, "metadata.source_version")
        .join(source.select(*key), on=key, how="left_semi")
        .orderBy(fn.desc("source_version"), *key)
    )
