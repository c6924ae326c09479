"""A predict run: what all its parts need, and what it did so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict, Unpack

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.conditional import TableState
from lakemill.engines.engine import Engine, Once, Own, opened
from lakemill.engines.marks import JOBS
from lakemill.engines.relations import Rows, Scored
from lakemill.engines.sql import all_equal
from lakemill.predict.progress import checkpoint_of, job_identity
from lakemill.predict.source import Source
from lakemill_udfs.plan import PredictPlan, SourcePosition

Progress = Callable[[str], None]


class Origin(TypedDict, total=False):
    """What completes the provenance of a batch's rows; see ``Provenance``."""

    query_id: str | None
    batch_id: int | None
    source_version: int | None
    position: SourcePosition | None


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

    def to_dict(self) -> dict[str, object]:
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

    def add(self, batch: Committed, batch_id: int | None, source_version: int | None) -> None:
        """Count a committed batch."""
        self.rows, self.rows_error, self.batches = (
            self.rows + batch.rows,
            self.rows_error + batch.rows_error,
            self.batches + 1,
        )
        self.source_version = source_version
        self.tasks += [{**task, "batch_id": batch_id} for task in batch.tasks]


@dataclass(frozen=True)
class Committed:
    """What one commit came to.

    Args:
        rows: Rows written.
        rows_error: Of those, rows with an error.
        tasks: What each task measured.
    """

    rows: int = 0
    rows_error: int = 0
    tasks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Run:
    """What all parts of a run need.

    Args:
        config: The job.
        engine: Where it runs.
        source: What is scored.
        plan: What workers get.
        schema: Columns of the predictions.
        result: What the run did so far.
        tell: Gets a line of progress.
        is_new_output: Whether this run made the output.
        replaces_table: Whether it overwrites the output whole, and not only the job's own rows.
        output_state: The output as the run's rows are chosen from it; None where nothing is written.
    """

    config: PredictConfig
    engine: Engine
    source: Source
    plan: PredictPlan
    schema: pa.Schema
    result: PredictResult
    tell: Progress
    is_new_output: bool
    replaces_table: bool = False
    output_state: TableState | None = None

    @property
    def state(self) -> TableState:
        """What the run's commits are conditional on."""
        assert self.output_state is not None  # noqa: S101 -- only a preview has none, and it commits nothing
        return self.output_state

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the job's progress is kept; see ``checkpoint_of``."""
        return checkpoint_of(self.config)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the checkpoint is for; see ``job_identity``."""
        return job_identity(self.config, self.source.key, self.source.snapshot.id)

    @property
    def own(self) -> Own:
        """Which rows of the output are this job's."""
        return {"metadata.job": self.config.name}

    def predictions(self, condition: str | None = None) -> Rows:
        """Return this job's rows of the output as it is now.

        Args:
            condition: SQL that they fulfil.
        """
        rows = self.engine.rows(opened(self.engine, self.config.output.table)).where(own_rows(self.config))
        return rows if condition is None else rows.where(condition)

    def scored(
        self, rows: Rows, *, anew: bool = False, keep: bool = True, **origin: Unpack[Origin]
    ) -> AbstractContextManager[Scored]:
        """Score rows once, and keep their predictions while the context lasts.

        Args:
            rows: Of the source.
            anew: Whether ``deduplicate`` takes over no earlier result.
            keep: Whether something looks at the rows before they are committed.
            **origin: Completes the rows' provenance.
        """
        once: Once | None = None
        if self.config.deduplicate is not None:
            once = Once(self.source.key, None if anew else self.predictions())
        plan = replace(self.plan, provenance=replace(self.plan.provenance, **origin))
        group_by, output = self.config.engine.group_by, self.config.output.table
        return self.engine.scored(rows, plan, group_by=group_by, once=once, into=output, keep=keep)


def own_rows(config: PredictConfig) -> str:
    """Return SQL that is true for a job's own rows of its output."""
    return all_equal({"metadata.job": config.name})


def rows_of_run(run_id: str) -> str:
    """Return SQL that is true for the rows that a run wrote."""
    return all_equal({"metadata.run_id": run_id})


def rows_of_batch(query_id: str | None, batch_id: int) -> str:
    """Return SQL that is true for the rows of an incremental batch."""
    return all_equal({"metadata.query_id": str(query_id), "metadata.batch_id": batch_id})


FAILED = "error IS NOT NULL"
"""SQL that is true for predictions that are errors."""

POSITION_COLUMNS = ("metadata.position", "metadata.source_version")


def state_of(engine: Engine, config: PredictConfig, *, replaces_table: bool = False) -> TableState:
    """Return the output of a job as it is now; its next commits are conditional on that.

    Args:
        engine: Where the job runs.
        config: The job.
        replaces_table: Whether the next commit takes away other jobs' rows too.
    """
    table, own = config.output.table, own_rows(config)

    def count(version: int) -> object:
        rows = engine.rows(opened(engine, table, version)).where(own)
        return sorted(repr(sorted(counted.items())) for counted in rows.tally(POSITION_COLUMNS))

    app = ("" if replaces_table else JOBS) + config.name
    return TableState.read(engine, table, app, count)
