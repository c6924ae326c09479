"""A struct that is the same in each row of a batch: built once for the most rows so far, then a view of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


class RepeatedStruct:
    """One value for all rows, except for one list of numbers that each batch has its own of.

    Args:
        value: By field; a field without one is null.
        kind: Of the struct.
        varying: The field of type ``list<int64>`` that differs from batch to batch.
    """

    def __init__(self, value: Mapping[str, Any], kind: pa.StructType, varying: str) -> None:
        self._kind, self._varying = kind, varying
        self._single = {
            field.name: pa.array([value.get(field.name)], field.type) for field in kind if field.name != varying
        }
        self._rows = 0
        self._arrays: dict[str, pa.Array] = {}

    def array(self, rows: int, numbers: Sequence[int], given: Mapping[str, pa.Array] | None = None) -> pa.StructArray:
        """Return the struct ``rows`` times, with ``numbers`` in its varying field.

        Args:
            rows: How often.
            numbers: Of this batch.
            given: Fields that differ from row to row, by name.
        """
        if rows > self._rows or not self._arrays:
            first = pa.array(np.zeros(rows, np.int32))
            self._arrays = {name: array.take(first) for name, array in self._single.items()}
            self._rows = rows
        offsets = np.arange(rows + 1, dtype=np.int32) * len(numbers)
        varying = pa.ListArray.from_arrays(offsets, np.tile(np.array(numbers, np.int64), rows))
        own = {self._varying: varying, **(given or {})}
        arrays = [
            own[field.name] if field.name in own else self._arrays[field.name].slice(0, rows) for field in self._kind
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(self._kind))
