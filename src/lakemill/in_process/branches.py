"""What challengers made of the rows of a call, and which models scored each row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill.in_process.results import Output
from lakemill_udfs.batch import Batch
from lakemill_udfs.tensors.ragged import from_rows, join
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import Branch

ERROR = TensorSpec("error", "string", nullable=True)


def branch_outputs(branches: Sequence[Branch], batches: Sequence[Batch]) -> dict[str, Output]:
    """Return the challengers' outputs of all rows, ``out_<challenger>.<name>``, and ``error`` as a text.

    Args:
        branches: Of the plan.
        batches: All that the call's rows were run in.
    """
    outputs: dict[str, Output] = {}
    for branch in branches:
        own = [batch.branches[branch.name] for batch in batches]
        for spec in branch.outputs:
            values = join([_whole(one, one.values[spec.name]) for one in own], spec)
            outputs[f"out_{branch.name}.{spec.name}"] = spec, values
        errors = [_error(one, row) for one in own for row in range(one.rows)]
        outputs[f"out_{branch.name}.error"] = ERROR, from_rows(errors)
    return outputs


def _whole(batch: Batch, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the active rows at their places, None in between."""
    if len(batch.active) == batch.rows:
        return values
    rows: list[Any] = [None] * batch.rows
    for row, value in zip(batch.active, values, strict=True):
        rows[int(row)] = value
    return from_rows(rows)


def _error(batch: Batch, row: int) -> str | None:
    failure = batch.failures.get(row)
    return None if failure is None else str(failure[1])


def models_of_rows(batches: Sequence[Batch], models: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return for each row the models that scored it, in the plan's order."""
    return [[models[place] for place in places] for batch in batches for places in _places(batch)]


def last_models(
    batches: Sequence[Batch], models: Sequence[Mapping[str, Any]], shadows: Collection[int]
) -> list[dict[str, Any] | None]:
    """Return for each row the last model whose result counts, under the reference's names.

    Args:
        batches: All that the call's rows were run in.
        models: Of the plan.
        shadows: Places of the challengers, which do not count.
    """
    found: list[dict[str, Any] | None] = []
    for batch in batches:
        for places in _places(batch):
            counting = [place for place in places if place not in shadows]
            last = models[counting[-1]] if counting else {}
            found.append({"model_name": last["name"], "model_sha": last["sha256"]} if last else None)
    return found


def _places(batch: Batch) -> list[list[int]]:
    answers = np.sort(np.stack(batch.scored_by, axis=1), axis=1)
    return [[place for place in row if place >= 0] for row in answers.tolist()]
