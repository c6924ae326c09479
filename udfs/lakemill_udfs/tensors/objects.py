"""Columns of bytes and of points in time as they are: object arrays for models that take such columns."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.tensors.spec import TensorSpec

WHOLE = ("binary", "datetime", "object")
"""The dtypes whose values are taken as they are: no list of them and no bytes become a tensor."""

HELD = {"binary": ("binary", "large_binary"), "datetime": ("timestamp", "date", "Timestamp")}
"""Beginnings of the types that hold them."""


def holds_whole(kind: str, dtype: str) -> bool:
    """Return whether a column of a type that is no tensor holds such values."""
    return kind == "null" or kind.startswith(HELD.get(dtype, ""))


def read_objects(column: Any, spec: TensorSpec) -> tuple[NDArray[Any], list[RowError | None] | None]:
    """Return a column's values ``(n,)``: ``bytes``, ``datetime`` in UTC without a zone, or dicts and lists.

    Args:
        column: An Arrow column, a numpy array or a sequence.
        spec: With a dtype of ``WHOLE``; a null value is None where it is nullable.

    Returns:
        The values of the rows that have one of the right type, and why the others have none.
    """
    if isinstance(column, pa.Array | pa.ChunkedArray):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        cells = column.to_pylist()
    else:
        cells = list(column)
    read = [_value(cell, spec) for cell in cells]
    failures = [value if isinstance(value, RowError) else None for value in read]
    values = [value for value in read if not isinstance(value, RowError)]
    batch = np.empty(len(values), dtype=object)
    batch[:] = values
    return batch, failures if any(failures) else None


def _value(cell: Any, spec: TensorSpec) -> Any:
    if cell is None or (isinstance(cell, float | np.datetime64 | dt.datetime) and cell != cell):  # noqa: PLR0124 -- NaN, NaT
        return None if spec.nullable else RowError("INPUT_NULL", f"{spec.name}: expected {spec}, got null.")
    if spec.dtype == "object":
        return cell
    value = bytes(cell) if isinstance(cell, bytearray | memoryview) else cell
    if spec.dtype == "datetime":
        value = _in_utc(value)
    kind = bytes if spec.dtype == "binary" else dt.datetime
    if isinstance(value, kind):
        return value
    return RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got {type(cell).__name__}.")


def _in_utc(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if hasattr(value, "to_pydatetime"):  # pandas' own class, with nanoseconds
        value = value.to_pydatetime(warn=False)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    is_aware = isinstance(value, dt.datetime) and value.tzinfo is not None
    return value.astimezone(dt.UTC).replace(tzinfo=None) if is_aware else value
