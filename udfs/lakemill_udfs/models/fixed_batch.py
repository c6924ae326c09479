"""Models that take batches of one size only: rows are cut into such batches, and the last one is padded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.models.model import Arrays


def in_batches_of(size: int, inputs: Arrays, run: Callable[[Arrays], Arrays]) -> Arrays:
    """Return the outputs ``(n, ...)`` of a function that takes ``size`` rows at a time.

    Args:
        size: The rows of a batch.
        inputs: Tensors ``(n, ...)`` by name; n is at least 1.
        run: Returns the outputs ``(size, ...)`` of inputs ``(size, ...)``.
    """
    rows = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, rows, size):
        results = run({name: _padded(array[start : start + size], size) for name, array in inputs.items()})
        parts.append({name: array[: min(size, rows - start)] for name, array in results.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(array)
    return array if not missing else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
