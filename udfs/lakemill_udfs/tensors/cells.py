"""Columns in any form to batches: Arrow columns, numpy arrays ``(n, ...)``, and sequences with one Python cell a row.

A cell is a numpy array, a nested list, bytes, a ``{"data": ..., "shape": ...}`` dict, or one number or string.
"""

from __future__ import annotations

import array
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.tensors.casts import cast_arrow, cast_numpy, of_shape, row_shape
from lakemill_udfs.tensors.columns import NO_TENSOR, Failures, decoded, each_row, no_value, read_tensor
from lakemill_udfs.tensors.objects import WHOLE, read_objects
from lakemill_udfs.tensors.spec import DTYPES, OBJECTS, TensorSpec

Column = Any
"""``pyarrow.Array`` or ``ChunkedArray``, ``numpy.ndarray`` ``(n, ...)``, or a sequence of cells."""

TYPECODES = {
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q"},
    **{"uint64": "Q", "float16": "f", "float32": "f", "float64": "d"},
}
"""Kinds of ``array.array``, which takes in a list faster than numpy does, and no float for an integer."""

PYTHON_TYPES = {
    **{
        "bool": "bool",
        "int": "int64",
        "float": "float64",
        "str": "string",
        "NoneType": "float64",
    },  # None: an empty list
    **{"bytes": "binary", "bytearray": "binary", "memoryview": "binary", "dict": "struct", "Decimal": "decimal"},
}
"""What a Python value is, in the names of tensors and of Arrow."""

ARROW = (pa.Array, pa.ChunkedArray)
BYTES = ("B", "b", "c")
"""Formats of a ``memoryview`` of bytes; any other says itself what it holds."""

SHORT = 64
"""Lists shorter than this, as a pixel's colours, are put together first: one call for each would cost more."""


def read_column(
    column: Column, spec: TensorSpec, stored_dtype: str, dims: Sequence[Column] = ()
) -> tuple[NDArray[Any], Failures | None]:
    """Turn a column of any form into one batch; arguments and result are those of ``columns.read_tensor``."""
    if spec.dtype in WHOLE and not spec.shape:
        return read_objects(column, spec)
    if isinstance(column, ARROW):
        return read_tensor(column, spec, stored_dtype, [_arrow(dim) for dim in dims])
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf" and not dims:
        try:
            return cast_numpy(column, spec).reshape(len(column), *row_shape(spec, column.shape[1:])), None
        except (RowError, pa.ArrowInvalid):
            pass  # row by row below, so that the error names the row
    sizes = np.stack([np.asarray(dim) for dim in dims], axis=1).tolist() if dims else None
    return _read_cells(column, spec, stored_dtype, sizes)


def contents(column: Column) -> list[Any]:
    """Return each value of a binary column as a buffer or None; of an Arrow column without a copy."""
    if isinstance(column, ARROW):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return [value.as_buffer() if value.is_valid else None for chunk in chunks for value in decoded(chunk)]
    return [cell if isinstance(cell, bytes | bytearray | memoryview) else None for cell in column]


def texts(column: Column) -> list[str | None]:
    """Return each value of a string column, or None."""
    cells = column.to_pylist() if isinstance(column, ARROW) else column
    return [cell if isinstance(cell, str) else None for cell in cells]


def _arrow(column: Column) -> pa.Array | pa.ChunkedArray:
    return column if isinstance(column, ARROW) else pa.array(column)


def _read_cells(
    column: Sequence[Any], spec: TensorSpec, stored_dtype: str, sizes: list[list[int]] | None
) -> tuple[NDArray[Any], Failures | None]:
    cells = list(column)
    if cells and sizes is None and not isinstance(cells[0], np.ndarray | bytes | Mapping):
        try:  # all rows as one nested list
            batch = _from_list(cells, spec)
            return batch.reshape(len(cells), *row_shape(spec, batch.shape[1:])), None
        except NO_TENSOR:
            pass

    def read(index: int) -> NDArray[Any] | None:
        return _read_cell(cells[index], spec, stored_dtype, None if sizes is None else sizes[index])

    return each_row(len(cells), read, spec)


def _read_cell(cell: Any, spec: TensorSpec, stored_dtype: str, size: list[int] | None) -> NDArray[Any] | None:
    if is_missing(cell):
        if not spec.nullable:
            raise RowError("INPUT_NULL", f"{spec.name}: expected {spec}, got null.")
        return no_value(spec)
    if isinstance(cell, Mapping) and cell.keys() == {"data", "shape"}:
        cell, size = cell["data"], [int(length) for length in cell["shape"]]
    if size is not None:
        spec = of_shape(spec, tuple(size))
    if np.ma.is_masked(cell):
        raise RowError("INPUT_NULL", f"{spec.name}: a tensor holds a masked value.")
    if isinstance(cell, memoryview) and cell.format not in BYTES:
        cell = np.asarray(cell)
    if isinstance(cell, bytes | bytearray | memoryview):
        stored = TensorSpec(spec.name, stored_dtype).numpy_dtype
        if spec.dtype in OBJECTS:
            raise RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got bytes.")
        if len(cell) % stored.itemsize:
            raise RowError("TENSOR_SHAPE", f"{spec.name}: {len(cell)} bytes are no whole number of {stored} values.")
        cell = np.frombuffer(cell, dtype=stored)
    if isinstance(cell, np.ndarray) and cell.dtype.kind in "biuf" and spec.dtype not in OBJECTS:
        tensor = cast_numpy(cell, spec)
    else:
        tensor = _from_list(cell, spec)
    return tensor.reshape(row_shape(spec, tensor.shape))


def is_missing(cell: Any) -> bool:
    """Return whether a cell is None, numpy's mask or one of pandas' marks for a missing value; NaN is a number."""
    return cell is None or cell is np.ma.masked or type(cell).__name__ in ("NAType", "NaTType")


def _from_list(cells: Any, spec: TensorSpec) -> NDArray[Any]:
    """Return a nested list, or one value, in the tensor's dtype and the list's own shape."""
    shape, first = _probe(cells)
    if isinstance(first, dt.date | dt.time | dt.timedelta | np.datetime64 | np.timedelta64):
        raise RowError("INPUT_DATE", f"{spec.name}: expected {spec}, got a date.", hint="give dates as strings.")
    if spec.dtype in OBJECTS:
        return _objects(cells, spec, shape)
    if isinstance(first, str | bytes):
        raise RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got {type(first).__name__}.")
    values = array.array(TYPECODES.get(spec.dtype, "B"))
    try:
        _fill(values.fromlist, cells, shape, spec)
    except (TypeError, OverflowError):  # floats for an integer, numpy's own lists, text in between
        return _by_numpy(cells, spec)
    flat: NDArray[Any] = np.frombuffer(values, dtype=values.typecode)
    if values.typecode == "f" and np.isinf(flat).any():  # it may be one of the cells', or a number too large
        return _by_numpy(cells, spec)
    if spec.dtype == "bool":
        if flat.size and flat.max() > 1:
            raise RowError("INPUT_CAST", f"{spec.name}: expected 0 or 1 for a bool.")
        flat = flat.view(np.bool_)
    return cast_numpy(flat, spec).reshape(shape)


def _probe(cells: Any) -> tuple[list[int], Any]:
    """Return the sizes along the first values of a nested list, and its very first value."""
    shape = []
    while isinstance(cells, list | tuple | np.ndarray) and getattr(cells, "shape", None) != ():
        shape.append(len(cells))
        if not len(cells):
            return shape, None
        cells = cells[0]
    return shape, cells


def _fill(add: Callable[[list[Any]], None], cells: Any, shape: list[int], spec: TensorSpec) -> None:
    """Add all values of a nested list, innermost lists one by one."""
    if not shape:
        add([cells])
        return
    if not isinstance(cells, list | tuple | np.ndarray):
        raise RowError("TENSOR_RAGGED", f"{spec.name}: expected a list of {shape[0]}, got {type(cells).__name__}.")
    if len(cells) != shape[0]:
        raise RowError("TENSOR_RAGGED", f"{spec.name}: expected lists of one size, got {shape[0]} and {len(cells)}.")
    if len(shape) == 1:
        add(cells if isinstance(cells, list) else list(cells))
        return
    if len(shape) == 2 and shape[1] < SHORT and set(map(type, cells)) == {list} and set(map(len, cells)) == {shape[1]}:
        add(list(chain.from_iterable(cells)))
        return
    for inner in cells:
        _fill(add, inner, shape[1:], spec)


def _by_numpy(cells: Any, spec: TensorSpec) -> NDArray[Any]:
    values = np.stack([_by_numpy(cell, spec) for cell in cells]) if _holds_arrays(cells) else np.asarray(cells)
    if values.dtype == object and all(isinstance(value, Decimal) for value in values.flat):  # Delta's form of uint64
        return cast_arrow(pa.array(values.reshape(-1)), spec).reshape(values.shape)
    if values.dtype.kind not in "biuf":
        kinds = "text" if values.dtype.kind in "US" else "values that are no numbers, or null"
        raise RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got {kinds}.")
    return cast_numpy(values, spec)


def _holds_arrays(cells: Any) -> bool:
    """Return whether this is a list of numpy arrays, as Arrow's nested lists become in pandas."""
    return isinstance(cells, list | np.ndarray) and len(cells) > 0 and isinstance(cells[0], np.ndarray)


def _objects(cells: Any, spec: TensorSpec, shape: list[int]) -> NDArray[Any]:
    kind = str if spec.dtype == "string" else bytes
    leaves: list[Any] = []
    _fill(leaves.extend, cells, shape, spec)
    for leaf in leaves:
        if not isinstance(leaf, kind) and not (spec.nullable and leaf is None):
            raise RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got {type(leaf).__name__}.")
    if kind is str:
        try:
            "".join(leaf for leaf in leaves if leaf is not None).encode()
        except UnicodeEncodeError:
            raise RowError("INPUT_TEXT", f"{spec.name}: the text is no valid Unicode (a lone surrogate).") from None
    values = np.empty(len(leaves), dtype=object)
    values[:] = leaves
    return values.reshape(shape)


def describe(name: str, column: Column) -> TensorSpec | str:
    """Return the tensor that a numpy array or a sequence of cells holds, as its first value has it.

    What is no tensor by itself is named: ``binary`` for bytes, ``struct`` for a tensor with its shape, the type's name
    for dates and other objects.
    """
    if isinstance(column, np.ndarray) and column.dtype != object:
        return _of_dtype(name, column.dtype, column.shape[1:])
    cell = next((cell for cell in column if not is_missing(cell)), None)
    if cell is None:
        return "null"
    if isinstance(cell, memoryview) and cell.format not in BYTES:
        cell = np.asarray(cell)
    if isinstance(cell, np.ndarray) and cell.dtype != object:
        return _of_dtype(name, cell.dtype, (None,) * cell.ndim)
    shape, first = _probe(cell)
    free = (None,) * len(shape)
    if isinstance(first, np.ndarray | np.generic):
        return _of_dtype(name, np.asarray(first).dtype, free)
    known = PYTHON_TYPES.get(type(first).__name__, type(first).__name__)
    return TensorSpec(name, known, free) if known in DTYPES and known != "binary" else known


@lru_cache  # a service sees the same columns in each call
def _of_dtype(name: str, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> TensorSpec | str:
    if dtype.kind in "biuf" and dtype.name in DTYPES:
        return TensorSpec(name, dtype.name, shape)
    return TensorSpec(name, "string", shape) if dtype.kind == "U" else str(dtype)
