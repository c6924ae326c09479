"""What differs from row to row beside the results: which models scored it, why it failed, what challengers say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lakemill_udfs.batch import Batch
from lakemill_udfs.plan import ERROR
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.wiring import Branch


def models_column(batch: Batch, models: pa.StructArray) -> pa.ListArray:
    """Return for each row the models that scored it, in the plan's order.

    Args:
        batch: Knows them by their places.
        models: All of the plan.
    """
    answers = np.sort(np.stack(batch.scored_by or [np.full(batch.rows, -1)], axis=1), axis=1)
    kinds, inverse = np.unique(answers, axis=0, return_inverse=True)
    places = [[int(place) for place in kind if place >= 0] for kind in kinds]
    offsets = np.cumsum([0, *map(len, places)], dtype=np.int32)
    flat = pa.array([place for kind in places for place in kind], pa.int32())
    return pa.ListArray.from_arrays(offsets, models.take(flat)).take(pa.array(inverse.reshape(-1)))


def in_rows(results: pa.Array, batch: Batch) -> pa.Array:
    """Return the results of the good rows at the rows' places, null in between."""
    if len(batch.active) == batch.rows:
        return results
    places = np.full(batch.rows, -1)
    places[batch.active] = np.arange(len(batch.active))
    return results.take(pa.array(places, mask=places < 0))


def error_column(batch: Batch) -> pa.Array:
    """Return why each row has no result; null for those that have one."""
    if not batch.failures:
        return pa.nulls(batch.rows, ERROR)
    errors: list[dict[str, str] | None] = [None] * batch.rows
    for row, (stage, error) in batch.failures.items():
        errors[row] = {"stage": stage, "code": error.code, "message": error.message}
    return pa.array(errors, ERROR)


def branch_column(branch: Branch, batch: Batch, kind: pa.StructType) -> pa.StructArray:
    """Return what a challenger makes of each row; null where the row did not come to it.

    Args:
        branch: Says which outputs.
        batch: The challenger's own.
        kind: Of the column; its last field is the error.
    """
    arrays = [in_rows(write_tensor(batch.values[spec.name], spec), batch) for spec in branch.outputs]
    absent = np.ones(batch.rows, dtype=bool)
    absent[batch.active] = False
    absent[list(batch.failures)] = False
    return pa.StructArray.from_arrays([*arrays, error_column(batch)], fields=list(kind), mask=pa.array(absent))
