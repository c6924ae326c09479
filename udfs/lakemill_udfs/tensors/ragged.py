"""Batches whose rows differ in size: an object array ``(n,)`` that holds one array, or None, for each row.

Where all rows are of one size a batch is stacked, ``(n, ...)``. A spec with a free dimension allows both; an optional
input of any shape is ragged where rows have no value. A model gets the rows in groups of one shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

Group = tuple[NDArray[np.int64], dict[str, NDArray[Any]]]
"""Positions of rows, and their inputs by name."""


def is_ragged(batch: NDArray[Any], spec: TensorSpec) -> bool:
    """Return whether a batch of this spec holds one array for each row."""
    return batch.dtype == object and batch.ndim == 1 and (bool(spec.shape) or spec.dtype not in OBJECTS)


def from_rows(rows: Sequence[Any]) -> NDArray[Any]:
    """Return the object array of these rows, one array (or bytes) each."""
    batch = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        batch[index] = row
    return batch


def stacked(rows: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """Return rows, one at least, as a batch: stacked where all are of one size, else ragged."""
    full = [row for row in rows if row is not None]
    if len(full) == len(rows) and all(row.shape == full[0].shape for row in full):
        return np.stack(full) if len(full) > 1 else full[0][np.newaxis]
    return from_rows(rows)


def alike(inputs: Mapping[str, NDArray[Any]], ragged: Sequence[str], rows: int) -> Iterator[Group]:
    """Yield groups of rows that a model can take as one batch.

    Args:
        inputs: Batches by name.
        ragged: Names of those that are ragged.
        rows: Rows of each.

    Yields:
        The rows' positions and their inputs, stacked; an input for which the group's rows have no value is left out.
    """
    if not ragged:
        yield np.arange(rows), dict(inputs)
        return
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(rows):
        cells = [inputs[name][row] for name in ragged]
        groups.setdefault(tuple(None if cell is None else cell.shape for cell in cells), []).append(row)
    for shapes, members in groups.items():
        places = np.array(members)
        group = {name: batch[places] for name, batch in inputs.items()}
        for name, shape in zip(ragged, shapes, strict=True):
            if shape is None:
                del group[name]
            else:
                group[name] = np.stack(list(group[name]))
        yield places, group


def join(parts: Sequence[NDArray[Any]], spec: TensorSpec) -> NDArray[Any]:
    """Put batches one after the other: stacked where all rows are of one size, else ragged.

    Args:
        parts: Stacked or ragged batches; none give an empty batch.
        spec: Of each of them.
    """
    if not parts:
        return np.empty((0, *(size or 0 for size in spec.shape)), spec.numpy_dtype)
    if len(parts) == 1:
        return parts[0]
    if any(is_ragged(part, spec) for part in parts) or len({part.shape[1:] for part in parts}) > 1:
        return from_rows([row for part in parts for row in part])
    return np.concatenate(parts)
