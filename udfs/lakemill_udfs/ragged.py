"""Batches whose rows differ in size: an object array ``(n,)`` that holds one array for each row.

Where all rows are of one size a batch is stacked, ``(n, ...)``; a spec with a free dimension allows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.tensors import TensorSpec


def is_ragged(batch: NDArray[Any], spec: TensorSpec) -> bool:
    """Return whether a batch of this spec holds one array for each row."""
    return not spec.is_fixed and batch.dtype == object and batch.ndim == 1


def from_rows(rows: Sequence[Any]) -> NDArray[Any]:
    """Return the object array of these rows, one array (or bytes) each."""
    batch = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        batch[index] = row
    return batch


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
