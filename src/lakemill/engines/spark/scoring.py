"""Scoring on Spark: one pass of ``predict_batches`` over a DataFrame, kept until it is committed."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lakemill.engines.relations import KeyFaults
from lakemill.engines.spark.ahead import look_ahead
from lakemill.engines.spark.duplicates import score_once
from lakemill.engines.spark.errors import reported, reported_whole
from lakemill.engines.spark.few_rows import ScoredHere
from lakemill.engines.spark.rows import KeyVersions, SparkRows, frame_of, same_key, translated
from lakemill.engines.spark.scan import reads_blobs
from lakemill.engines.spark.schemas import arrow_schema, column_of, result_schema, select, with_constants
from lakemill_udfs.worker import PLACE, predict_batches, predict_group

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, Observation, Row, SparkSession

    from lakemill.engines.engine import Once
    from lakemill_udfs.plan import PredictPlan


@dataclass(frozen=True)
class SparkScored:
    """Rows that were scored once.

    Args:
        frame: The predictions, kept in Spark's cache.
        rows: How many.
        rows_error: Of those, rows with an error.
        tasks: What each task measured.
    """

    frame: DataFrame
    rows: int
    rows_error: int
    tasks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not self.rows

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Return how many rows have a key that does not tell them apart."""
        return SparkRows(self.frame).key_faults(key)

    @translated
    def to_arrow(self) -> pa.Table:
        """Bring the rows here."""
        return self.frame.toArrow()


class ScoredAsWritten:
    """Rows that a write scores; what they come to is known once it made its commit.

    Args:
        source: Rows of the source.
        plan: What workers get.
    """

    is_empty = False

    def __init__(self, source: SparkRows, plan: PredictPlan) -> None:
        self._source, self._plan = source, replace(plan, is_light=True)
        self._observation: Observation | None = None
        self._is_written = False

    @property
    def session(self) -> SparkSession:
        """The session in which they are written."""
        return self._source.frame.sparkSession

    def frame(self) -> DataFrame:
        """Return the predictions for one attempt to write them, which is counted."""
        from pyspark.sql import Observation

        made = _one_pass(self._source.frame, self._plan, ())
        self._observation = Observation()
        counted = made.observe(self._observation, *_totals(made.columns))
        return with_constants(counted, self._plan).drop("_task")

    def written(self) -> None:
        """Take note that the last attempt made its commit."""
        self._is_written = True

    @cached_property
    def _total(self) -> dict[str, Any]:
        if not self._is_written or self._observation is None:
            return {"rows": 0, "rows_error": 0, "tasks": []}  # the transaction was there already: nothing was scored
        return self._observation.get

    @property
    @translated
    def rows(self) -> int:
        """How many were written."""
        return int(self._total["rows"])

    @property
    def rows_error(self) -> int:
        """Of those, rows with an error."""
        return int(self._total["rows_error"])

    @property
    def tasks(self) -> tuple[Mapping[str, Any], ...]:
        """What each task measured."""
        return _tasks(self._total.get("tasks", ()))

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Score the rows, and return how many have a key that does not tell them apart."""
        return SparkRows(self.frame()).key_faults(key)

    @translated
    def to_arrow(self) -> pa.Table:
        """Score the rows and bring them here."""
        return self.frame().toArrow()


@translated
def score_here(rows: SparkRows, plan: PredictPlan) -> ScoredHere:
    """Run the inference once, and bring its few rows here."""
    light = replace(plan, is_light=True)
    frame = with_constants(_one_pass(rows.frame, light, ()), light)
    table = frame.toArrow().cast(arrow_schema(frame.schema))
    tasks = _tasks(table["_task"].drop_null().to_pylist()) if plan.task_metrics else ()
    return ScoredHere(table.drop_columns([name for name in ("_task",) if name in table.column_names]), tasks)


def is_light_work(rows: SparkRows, plan: PredictPlan) -> bool:
    """Return whether rows may be scored as they are written, each task making a file of its own.

    Of images, a task's results are few: they would be small files, and to keep them costs nothing beside the model.
    """
    return rows.versions is None and not reads_blobs(rows.schema, plan)


@contextmanager
def scored_rows(
    rows: SparkRows, plan: PredictPlan, group_by: Sequence[str], once: Once | None, output: str | None
) -> Iterator[SparkScored]:
    """Run the inference once, and keep its rows while the context lasts.

    Args:
        rows: Of the source.
        plan: What workers get.
        group_by: Score whole groups of these columns at once.
        once: Score equal inputs once.
        output: Where the rows will go, if that is known.
    """
    light = replace(plan, is_light=True)
    is_plain = once is None and rows.versions is None
    made = _one_pass(rows.frame, light, group_by) if is_plain else _predictions(rows, light, group_by, once)
    kept = made.persist()
    try:
        total = _total(kept, output)
        tasks = _tasks(total["tasks"]) if plan.task_metrics else ()
        scored = with_constants(kept, light) if is_plain else kept
        yield SparkScored(scored.drop("_task"), total["rows"], total["rows_error"], tasks)
    finally:
        kept.unpersist()


@translated
def _one_pass(rows: DataFrame, plan: PredictPlan, group_by: Sequence[str]) -> DataFrame:
    """Return what workers make of rows, lazily."""
    schema = result_schema(plan, rows.schema)
    selected = select(rows, plan.source_columns)
    if group_by:
        groups = selected.groupBy(*(PLACE.format(plan.source_columns.index(name)) for name in group_by))
        return groups.applyInArrow(reported_whole(functools.partial(predict_group, plan)), schema)
    return selected.mapInArrow(reported(functools.partial(predict_batches, plan)), schema)


@translated
def _predictions(rows: SparkRows, plan: PredictPlan, group_by: Sequence[str], once: Once | None) -> DataFrame:
    """Return predictions with what is noted of each row in its ``metadata``, lazily."""

    def one_pass(some: DataFrame) -> DataFrame:
        return with_constants(_one_pass(some, plan, group_by), plan)

    if once is None:
        made = one_pass(rows.frame)
    else:
        earlier = None if once.earlier is None else frame_of(once.earlier)
        made = score_once(rows.frame, plan, once.key, one_pass, earlier)
    return made if rows.versions is None else _with_versions(made, rows.versions)


def _with_versions(scored: DataFrame, versions: KeyVersions) -> DataFrame:
    """Return predictions whose ``source_version`` is that of the row's own commit."""
    from pyspark.sql import functions as fn

    own = fn.coalesce(versions.version, "metadata.source_version")
    return (
        scored.join(versions.frame, same_key(scored, versions.frame, versions.renamed), "left")
        .withColumn("metadata", fn.col("metadata").withField("source_version", own))
        .select(*(column_of(scored, name) for name in scored.columns))
    )


@translated
def _total(scored: DataFrame, output: str | None) -> Row:
    """Run the inference; return the numbers of rows and of errors, and what the tasks measured."""
    if output is not None:
        look_ahead(scored.sparkSession, output)
    total = scored.agg(*_totals(scored.columns)).first()
    assert total is not None  # noqa: S101 -- an aggregate without groups has exactly one row
    return total


def _tasks(texts: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """Return what tasks measured, from what a light plan's workers say."""
    said: list[dict[str, Any]] = [json.loads(text) for text in texts]
    return tuple({**task, "started": datetime.fromisoformat(task["started"])} for task in said)


def _totals(columns: Sequence[str]) -> list[Column]:
    from pyspark.sql import functions as fn

    tasks = [fn.collect_list("_task").alias("tasks")] if "_task" in columns else []
    return [fn.count("*").alias("rows"), fn.count("error").alias("rows_error"), *tasks]
