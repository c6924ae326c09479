"""A predict run: what all its parts need, and what it did so far."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark import tables
from lakemill.engines.spark.schemas import select
from lakemill.predict.commits import Committed
from lakemill.predict.source import Source
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.worker import predict_batches, predict_group

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Progress = Callable[[str], None]


@dataclass
class PredictResult:
    """What a run did.

    Args:
        job: Name of the job.
        run_id: Of this run, as in the rows' ``metadata``.
        mode: ``incremental``, ``full``, ``where``, ``missing`` or ``retry``.
        table: The predictions.
        table_version: Its version after the run.
        source_version: Newest version of the source that was scored; None if nothing was.
        pipeline_version: Hash of the resolved pipeline.
        rows: Rows written.
        rows_error: Of those, rows with an error.
        rows_rescored: Earlier rows that were scored again, with new models.
        batches: Commits.
        seconds: From the call to the return.
    """

    job: str
    run_id: str
    mode: str
    table: str
    pipeline_version: str
    table_version: int | None = None
    source_version: int | None = None
    rows: int = 0
    rows_error: int = 0
    rows_rescored: int = 0
    batches: int = 0
    seconds: float = 0.0
    tasks: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the tasks."""
        return {key: value for key, value in asdict(replace(self, tasks=[])).items() if key != "tasks"}

    def summary(self) -> str:
        """Return the run in one line."""
        if not self.batches:
            return f"nothing new: {self.table} is up to date, {self.seconds:.1f} s"
        return (
            f"{self.rows:,} rows scored, {self.rows_error:,} with errors, "
            + (f"{self.rows_rescored:,} earlier rows scored again, " if self.rows_rescored else "")
            + f"into {self.table} "
            f"(version {self.table_version}), {self.seconds:.1f} s"
        )

    def count(self, part: PredictResult) -> None:
        """Add what a part of a stream did; models and versions become that part's."""
        self.rows, self.rows_error, self.batches = (
            self.rows + part.rows,
            self.rows_error + part.rows_error,
            self.batches + part.batches,
        )
        self.rows_rescored += part.rows_rescored
        self.source_version, self.pipeline_version = part.source_version, part.pipeline_version

    def add_rescored(self, batch: Committed, batch_id: int) -> None:
        """Count a committed batch of earlier rows."""
        self.rows_rescored, self.batches = self.rows_rescored + batch.rows, self.batches + 1
        self.tasks += [{**task, "batch_id": batch_id} for task in batch.tasks]

    def add(self, batch: Committed, batch_id: int | None, source_version: int) -> None:
        """Count a committed batch."""
        self.rows, self.rows_error, self.batches = (
            self.rows + batch.rows,
            self.rows_error + batch.rows_error,
            self.batches + 1,
        )
        self.source_version = source_version
        self.tasks += [{**task, "batch_id": batch_id} for task in batch.tasks]


@dataclass(frozen=True)
class Run:
    """What all parts of a run need.

    Args:
        config: The job.
        user_session: The session that the job was given.
        spark: The session of its own that reads the source. It makes no DataFrame from local data: that would leave it
            as the process's active session.
        source: What is scored.
        plan: What workers get.
        schema: What comes back from them.
        result: What the run did so far.
        tell: Gets a line of progress.
        is_new_output: Whether this run made the output.
    """

    config: PredictConfig
    user_session: SparkSession
    spark: SparkSession
    source: Source
    plan: PredictPlan
    schema: StructType
    result: PredictResult
    tell: Progress
    is_new_output: bool

    def scored(self, rows: DataFrame, *, anew: bool = False, **origin: Any) -> DataFrame:
        """Return the predictions of ``rows``, lazily.

        Args:
            rows: Of the source.
            anew: Whether ``deduplicate`` takes over no earlier result.
            **origin: Completes the rows' provenance.
        """
        plan = replace(self.plan, provenance=replace(self.plan.provenance, **origin))
        if self.config.deduplicate is not None:
            from lakemill.predict.duplicates import score_once

            earlier = None if anew else tables.read(rows.sparkSession, self.config.output.table)
            return score_once(rows, plan, self.source.key, lambda some: self._one_pass(some, plan), earlier)
        return self._one_pass(rows, plan)

    def _one_pass(self, rows: DataFrame, plan: PredictPlan) -> DataFrame:
        rows = select(rows, plan.source_columns)
        if self.config.engine.group_by:
            return rows.groupBy(*self.config.engine.group_by).applyInArrow(
                functools.partial(predict_group, plan), self.schema
            )
        return rows.mapInArrow(functools.partial(predict_batches, plan), self.schema)
