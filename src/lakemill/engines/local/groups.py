"""Work on whole groups of rows, in a worker: a piece has whole groups, and fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from lakemill.engines.local.frames import frame_of
from lakemill.engines.local.own_columns import ROW
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.worker import predict_group


def predict_groups(plan: PredictPlan, by: Sequence[str], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Score each group of a piece at once, in a worker; see ``predict_group``."""
    for group in _groups(batches, by):
        yield from predict_group(plan, group).to_batches()  # type: ignore[no-untyped-call]  # Spark reads hints


def call_groups(
    function: Callable[[Any], Any], schema: pa.Schema, by: Sequence[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Call a function with each group of a piece as a ``pandas.DataFrame``, in a worker."""
    for group in _groups(batches, by):
        made = function(group.to_pandas())
        yield from pa.Table.from_pandas(made, schema, preserve_index=False).combine_chunks().to_batches()


def _groups(batches: Iterable[pa.RecordBatch], by: Sequence[str]) -> Iterator[pa.Table]:
    parts = list(batches)
    if not parts:
        return
    table = pa.Table.from_batches(parts)
    keys = frame_of(table.select(list(by))).with_row_index(ROW)
    for _, group in keys.group_by(list(by), maintain_order=True):
        yield table.take(group[ROW].to_arrow())


def predicting_groups(plan: PredictPlan, by: Sequence[str]) -> partial[Iterator[pa.RecordBatch]]:
    """Return what workers make of dealt rows: predictions of whole groups."""
    return partial(predict_groups, plan, tuple(by))
