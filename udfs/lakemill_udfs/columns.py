"""Arrow columns to numpy batches and back, as docs/tensors.md says.

Reading is one numpy view a batch for BINARY and lists that are numeric, fixed-shape and without nulls. Only where that
fails is a column looked at row by row, so that one bad row costs no good one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.ragged import is_ragged
from lakemill_udfs.tensors import ARROW_SCALARS, FREE, OBJECTS, TensorSpec

Failures = list[RowError | None]
"""For each row None, or why its value cannot become a tensor."""


def read_tensor(
    column: pa.Array | pa.ChunkedArray, spec: TensorSpec, stored_dtype: str
) -> tuple[NDArray[Any], Failures | None]:
    """Turn a column into one batch.

    Args:
        column: Scalars, BINARY, lists (nested or flat), FixedSizeList, fixed-shape tensors or ``struct<data, shape>``.
        spec: The tensor wanted.
        stored_dtype: dtype of the bytes, where the column is BINARY.

    Returns:
        The rows that could be read, in order, shape ``(n, *spec.shape)``; and None if all could, else a failure for
        each that could not.
    """
    array = _one_array(column)
    try:
        return _read_whole(array, spec, stored_dtype), None
    except (RowError, pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        return _read_rows(array, spec, stored_dtype)


def write_tensor(batch: NDArray[Any], spec: TensorSpec) -> pa.Array:
    """Turn a batch ``(n, *spec.shape)``, stacked or ragged, into the Arrow column that Delta holds."""
    if is_ragged(batch, spec):
        cells = [write_tensor(np.asarray(cell)[np.newaxis], spec) for cell in batch]
        return pa.concat_arrays(cells) if cells else pa.array([], spec.arrow_type())
    if spec.dtype in OBJECTS:
        return pa.array(batch.tolist(), spec.arrow_type())
    batch = np.ascontiguousarray(batch, dtype=spec.numpy_dtype)
    rows, target = len(batch), spec.arrow_type()
    if pa.types.is_binary(target):
        return _binary(batch, rows)
    if target == FREE:
        shapes = np.broadcast_to(np.asarray(batch.shape[1:], dtype=np.int32), (rows, batch.ndim - 1))
        return pa.StructArray.from_arrays(
            [_binary(batch, rows), write_tensor(shapes, TensorSpec("shape", "int32", shapes.shape[1:]))],
            fields=list(FREE),
        )
    values = _scalars(batch.reshape(-1), spec.dtype)
    for axis in range(len(spec.shape), 0, -1):
        lists, size = math.prod(batch.shape[:axis]), batch.shape[axis]
        values = pa.ListArray.from_arrays(np.arange(lists + 1, dtype=np.int32) * size, values)
    return values


def _scalars(flat: NDArray[Any], dtype: str) -> pa.Array:
    if dtype == "uint64":
        return pa.array(flat).cast(ARROW_SCALARS[dtype])
    return pa.array(
        flat.astype({"uint8": "i2", "uint16": "i4", "uint32": "i8", "float16": "f4"}.get(dtype, flat.dtype), copy=False)
    )


def _binary(batch: NDArray[Any], rows: int) -> pa.Array:
    row_bytes = batch.nbytes // rows if rows else 0
    wide = batch.nbytes > np.iinfo(np.int32).max
    offsets = np.arange(rows + 1, dtype=np.int64 if wide else np.int32) * row_bytes
    return pa.Array.from_buffers(
        pa.large_binary() if wide else pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(batch)]
    )


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps chunks only where offsets would overflow
            raise RowError("BATCH_TOO_LARGE", "one batch holds more than 2 GiB.", hint="engine.batch_bytes: 64MiB")
    if not isinstance(column, pa.FixedShapeTensorArray):
        return column.storage if isinstance(column, pa.ExtensionArray) else column
    if column.type.permutation and list(column.type.permutation) != sorted(column.type.permutation):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(column.to_numpy_ndarray()))
    return column.storage


def _read_whole(array: pa.Array, spec: TensorSpec, stored_dtype: str) -> NDArray[Any]:
    """Read all rows at once, or raise if any row is null or differs in size."""
    if array.null_count and not (spec.nullable and spec.dtype.startswith("float") and not spec.shape):
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    rows, kind = len(array), array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _view_binary(array, spec, stored_dtype)
    if pa.types.is_struct(kind):
        raise RowError("TENSOR_SHAPE", "tensors with free dimensions are read row by row.")
    sizes: list[int] = []
    while _is_list(array.type):
        size, array = _flatten(array, spec)
        sizes.append(size)
    return _numbers(array, spec).reshape(rows, *_shape_of(spec, tuple(sizes)))


def _view_binary(array: pa.Array, spec: TensorSpec, stored_dtype: str) -> NDArray[Any]:
    if spec.dtype == "string":
        raise RowError("INPUT_TYPE", f"{spec.name}: expected strings, got binary.")
    if not len(array):
        return np.empty((0, *(size or 0 for size in spec.shape)), spec.numpy_dtype)
    width = np.int64 if pa.types.is_large_binary(array.type) else np.int32
    offsets = np.frombuffer(array.buffers()[1], dtype=width)[array.offset : array.offset + len(array) + 1]
    dtype = TensorSpec(spec.name, stored_dtype).numpy_dtype
    row_bytes = int(offsets[1] - offsets[0])
    if (np.diff(offsets) != row_bytes).any():
        raise RowError("TENSOR_SHAPE", f"{spec.name}: rows differ in size.")
    shape = _shape_of(spec, (_items(row_bytes, dtype, spec),))
    data = array.buffers()[2]
    if data is None or not row_bytes:
        return np.empty((len(array), *shape), spec.numpy_dtype)
    view = np.frombuffer(data, dtype=dtype, count=len(array) * (row_bytes // dtype.itemsize), offset=int(offsets[0]))
    if not _is_lossless(dtype, spec.numpy_dtype):
        view = _numbers(pa.array(view), spec)
    return view.reshape(len(array), *shape).astype(spec.numpy_dtype, copy=False)


def _is_lossless(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether a cast needs no look at the values: to floats digits may get lost, as everyone expects."""
    return wanted.kind == "f" or np.can_cast(stored, wanted)


def _items(row_bytes: int, dtype: np.dtype[Any], spec: TensorSpec) -> int:
    if row_bytes % dtype.itemsize:
        raise RowError("TENSOR_SHAPE", f"{spec.name}: {row_bytes} bytes are no whole number of {dtype.name} values.")
    return row_bytes // dtype.itemsize


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _flatten(array: pa.Array, spec: TensorSpec) -> tuple[int, pa.Array]:
    """Return the common size of a list array's rows and its values, without a copy."""
    if array.null_count:
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    if pa.types.is_fixed_size_list(array.type):
        return array.type.list_size, array.flatten()
    lengths = np.diff(np.asarray(array.offsets))
    if len(lengths) and (lengths != lengths[0]).any():
        raise RowError("TENSOR_SHAPE", f"{spec.name}: rows differ in size.")
    return int(lengths[0]) if len(lengths) else 0, array.flatten()


def _numbers(array: pa.Array, spec: TensorSpec) -> NDArray[Any]:
    if array.null_count and not (spec.nullable and not spec.shape):
        raise RowError("INPUT_NULL", f"{spec.name}: a tensor holds a null.")
    if spec.dtype == "string":
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise RowError("INPUT_TYPE", f"{spec.name}: expected strings, got {array.type}.")
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=object)
    target = pa.from_numpy_dtype(spec.numpy_dtype)
    if array.type != target:
        if pa.types.is_boolean(target):  # Arrow's cast would call every number but 0 true
            array = pc.cast(array, pa.uint8())
            if len(array) and pc.max(array).as_py() > 1:
                raise RowError("INPUT_CAST", f"{spec.name}: expected 0 or 1 for a bool.")
        floats = pa.types.is_floating(target)
        # losing digits of a float is what everyone expects; losing an integer is not
        array = pc.cast(array, pa.float32() if pa.types.is_float16(target) else target, safe=not floats)
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.astype(spec.numpy_dtype, copy=False)


def _shape_of(spec: TensorSpec, got: tuple[int, ...]) -> tuple[int, ...]:
    """Return one row's shape, from nested sizes, a flat length or a scalar; one free dimension may follow from it."""
    if spec.accepts(got):
        return got
    if len(got) <= 1:
        length = math.prod(got)
        known = math.prod(size for size in spec.shape if size is not None)
        free = spec.shape.count(None)
        if not free and known == length:
            return tuple(size or 0 for size in spec.shape)
        if free == 1 and known and length % known == 0:
            return tuple(length // known if size is None else size for size in spec.shape)
    raise _wrong_shape(spec, got)


def _wrong_shape(spec: TensorSpec, got: tuple[int, ...]) -> RowError:
    wanted = ", ".join("?" if size is None else str(size) for size in spec.shape)
    return RowError("TENSOR_SHAPE", f"{spec.name}: expected ({wanted}), got ({', '.join(map(str, got))}).")


def _read_rows(array: pa.Array, spec: TensorSpec, stored_dtype: str) -> tuple[NDArray[Any], Failures]:
    """Read row by row; the first good row sets the size of free dimensions for this batch."""
    rows: list[NDArray[Any]] = []
    failures: Failures = []
    for index in range(len(array)):
        value, failure = _attempt(partial(_read_row, array.slice(index, 1), spec, stored_dtype))
        if value is None:
            failures.append(failure)
        elif rows and value.shape != rows[0].shape:
            expected, got = rows[0].shape[1:], value.shape[1:]
            message = f"{spec.name}: expected {expected} as the rows before it, got {got}."
            failures.append(RowError("TENSOR_RAGGED", message))
        else:
            failures.append(None)
            rows.append(value)
    empty = np.empty((0, *(size or 0 for size in spec.shape)), spec.numpy_dtype)
    return np.concatenate(rows) if rows else empty, failures


def _attempt(read: Callable[[], NDArray[Any]]) -> tuple[NDArray[Any] | None, RowError | None]:
    try:
        return read(), None
    except RowError as error:
        return None, error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        return None, RowError("INPUT_CAST", f"a value cannot be cast to the tensor's dtype ({type(error).__name__}).")


def _read_row(row: pa.Array, spec: TensorSpec, stored_dtype: str) -> NDArray[Any]:
    if spec.nullable and row.null_count and not spec.shape and spec.dtype == "string":
        return np.array([None], dtype=object)
    if not pa.types.is_struct(row.type):
        return _read_whole(row, spec, stored_dtype)
    if row.null_count or row.field("data").null_count or row.field("shape").null_count:
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    shape = tuple(row.field("shape")[0].as_py())
    if not spec.accepts(shape):
        raise _wrong_shape(spec, shape)
    return _view_binary(row.field("data"), TensorSpec(spec.name, spec.dtype, shape), stored_dtype)
