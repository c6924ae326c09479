"""Arrow columns to numpy batches and back, as docs/tensors.md says.

Reading is one numpy view a batch for BINARY and lists that are numeric, fixed-shape and without nulls. Only where that
fails is a column looked at row by row, so that one bad row costs no good one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.tensors.casts import cast_arrow, cast_numpy, of_shape, row_shape
from lakemill_udfs.tensors.ragged import is_ragged, stacked
from lakemill_udfs.tensors.spec import ARROW_SCALARS, FREE, OBJECTS, TensorSpec, tensor_shape

Failures = list[RowError | None]
"""For each row None, or why its value cannot become a tensor."""

LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
NO_TENSOR = (RowError, pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, TypeError, OverflowError)
"""What reading a value raises that is no such tensor."""


def read_tensor(
    column: pa.Array | pa.ChunkedArray,
    spec: TensorSpec,
    stored_dtype: str,
    dims: Sequence[pa.Array | pa.ChunkedArray] = (),
) -> tuple[NDArray[Any], Failures | None]:
    """Turn a column into one batch.

    Args:
        column: Scalars, BINARY, lists (nested or flat), FixedSizeList, fixed-shape tensors or ``struct<data, shape>``.
        spec: The tensor wanted.
        stored_dtype: dtype of the bytes, where the column is BINARY.
        dims: Columns with the size of each dimension, where ``column`` holds flattened values.

    Returns:
        The rows that could be read, in order, shape ``(n, *spec.shape)``, or ragged if their free dimensions differ or
        some have no value; and None if all could be read, else a failure for each that could not.
    """
    array = _one_array(column)
    shapes = np.stack([_sizes(_one_array(dim)) for dim in dims], axis=1) if dims else None
    if isinstance(column.type, pa.FixedShapeTensorType) and len(spec.shape) > 1:
        shapes = np.broadcast_to(np.array(tensor_shape(column.type)), (len(array), len(column.type.shape)))
    try:
        return _read_whole(array, spec, stored_dtype, shapes), None
    except NO_TENSOR:
        return _read_rows(array, spec, stored_dtype, shapes)


def write_tensor(batch: NDArray[Any], spec: TensorSpec) -> pa.Array:
    """Turn a batch ``(n, *spec.shape)``, stacked or ragged, into the Arrow column that Delta holds."""
    if is_ragged(batch, spec):
        kind = spec.arrow_type()
        cells = [
            pa.nulls(1, kind) if cell is None else write_tensor(np.asarray(cell)[np.newaxis], spec) for cell in batch
        ]
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
    column = decoded(column)
    if not isinstance(column, pa.FixedShapeTensorArray):
        return column.storage if isinstance(column, pa.ExtensionArray) else column
    if column.type.permutation and list(column.type.permutation) != sorted(column.type.permutation):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(column.to_numpy_ndarray()))
    return column.storage


VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
RUNS = pa.run_end_encoded(pa.int32(), pa.int8())
LIST_VIEWS = (pa.list_view(pa.int8()), pa.large_list_view(pa.int8()))
ENCODED = {kind.id for kind in (*VIEWS, *LIST_VIEWS, RUNS, pa.dictionary(pa.int8(), pa.int8()))}
"""Ids of the types whose values do not stand one after the other."""


def decoded(array: pa.Array) -> pa.Array:
    """Return an array whose values stand one after the other: no dictionary, no runs, no views."""
    while array.type.id in ENCODED:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        elif array.type in VIEWS:
            array = pc.cast(array, VIEWS[array.type])
        else:
            array = _list_of_views(array)
    return array


def _list_of_views(array: pa.Array) -> pa.Array:
    """Return a list array; pyarrow's own cast leaves one offset too few (25.0)."""
    lengths = np.asarray(array.value_lengths().fill_null(0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    mask = array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(offsets, array.flatten(), mask=mask)


def _sizes(dim: pa.Array) -> NDArray[np.int64]:
    return np.asarray(dim.cast(pa.int64()).fill_null(-1))  # no size: the row's own shape check names it


def _read_whole(array: pa.Array, spec: TensorSpec, stored_dtype: str, shapes: NDArray[np.int64] | None) -> NDArray[Any]:
    """Read all rows at once, or raise if any row is null or differs in size."""
    if array.null_count and not (spec.nullable and spec.dtype.startswith("float") and not spec.shape):
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    if pa.types.is_struct(array.type):
        array, shapes = _parts(array, spec)
    if shapes is not None and len(shapes):
        if (shapes != shapes[0]).any():
            raise RowError("TENSOR_SHAPE", f"{spec.name}: rows differ in size.")
        spec = of_shape(spec, tuple(shapes[0].tolist()))
    rows = len(array)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return _view_binary(array, spec, stored_dtype)
    sizes: list[int] = []
    while isinstance(array.type, LISTS):
        size, array = _flatten(array, spec)
        sizes.append(size)
        array = decoded(array)
    return cast_arrow(array, spec).reshape(rows, *row_shape(spec, tuple(sizes)))


def _parts(array: pa.Array, spec: TensorSpec) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the data of ``struct<data, shape>`` and the shapes ``(n, rank)``."""
    if {field.name for field in array.type} != {"data", "shape"}:
        raise RowError("INPUT_TYPE", f"{spec.name}: expected {spec}, got {array.type}.")
    data, shapes = decoded(array.field("data")), decoded(array.field("shape"))
    if data.null_count:
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    rank, flat = _flatten(shapes, spec)
    return data, np.asarray(flat.cast(pa.int64()).fill_null(-1)).reshape(len(array), rank)


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
    shape = row_shape(spec, (_items(row_bytes, dtype, spec),))
    data = array.buffers()[2]
    if data is None or not row_bytes:
        return np.empty((len(array), *shape), spec.numpy_dtype)
    view = np.frombuffer(data, dtype=dtype, count=len(array) * (row_bytes // dtype.itemsize), offset=int(offsets[0]))
    return cast_numpy(view, spec).reshape(len(array), *shape)


def _items(row_bytes: int, dtype: np.dtype[Any], spec: TensorSpec) -> int:
    if row_bytes % dtype.itemsize:
        raise RowError("TENSOR_SHAPE", f"{spec.name}: {row_bytes} bytes are no whole number of {dtype.name} values.")
    return row_bytes // dtype.itemsize


def _flatten(array: pa.Array, spec: TensorSpec) -> tuple[int, pa.Array]:
    """Return the common size of a list array's rows and its values, without a copy."""
    if array.null_count:
        raise RowError("INPUT_NULL", f"{spec.name}: a required input is null.")
    if pa.types.is_fixed_size_list(array.type):
        return array.type.list_size, array.flatten()
    if not len(array):
        return 0, array.flatten()
    offsets = array.offsets.to_numpy()
    lengths = offsets[1:] - offsets[:-1]
    if len(array) > 1 and (lengths != lengths[0]).any():
        raise RowError("TENSOR_SHAPE", f"{spec.name}: rows differ in size.")
    return int(lengths[0]), array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _read_rows(
    array: pa.Array, spec: TensorSpec, stored_dtype: str, shapes: NDArray[np.int64] | None
) -> tuple[NDArray[Any], Failures | None]:
    def read(index: int) -> NDArray[Any] | None:
        shape = None if shapes is None else shapes[index : index + 1]
        return _read_row(array.slice(index, 1), spec, stored_dtype, shape)

    return each_row(len(array), read, spec)


def each_row(
    count: int, read: Callable[[int], NDArray[Any] | None], spec: TensorSpec
) -> tuple[NDArray[Any], Failures | None]:
    """Read rows one by one, so that a bad one costs no good one.

    Args:
        count: Of rows.
        read: Returns a row's tensor, None where an optional value is missing; raises one of ``NO_TENSOR``.
        spec: Of the tensor.

    Returns:
        The batch of the good rows, and for each row why it failed or None; None if none failed.
    """
    rows: list[NDArray[Any] | None] = []
    failures: Failures = []
    for index in range(count):
        try:
            rows.append(read(index))
        except RowError as error:
            failures.append(error)
        except NO_TENSOR as error:
            message = f"{spec.name}: expected {spec}, got a value that does not convert ({type(error).__name__})."
            failures.append(RowError("INPUT_CAST", message))
        else:
            failures.append(None)
    empty = np.empty((0, *(size or 0 for size in spec.shape)), spec.numpy_dtype)
    return stacked(rows) if rows else empty, failures if any(failures) else None


def _read_row(
    row: pa.Array, spec: TensorSpec, stored_dtype: str, shape: NDArray[np.int64] | None
) -> NDArray[Any] | None:
    """Return one row's tensor without the batch dimension; None where an optional value is missing."""
    if spec.nullable and row.null_count:
        return no_value(spec)
    tensor: NDArray[Any] = np.asarray(_read_whole(row, spec, stored_dtype, shape)[0], dtype=spec.numpy_dtype)
    return tensor


def no_value(spec: TensorSpec) -> NDArray[Any] | None:
    """Return what a model gets for a null: NaN or None as a single float or string, else nothing at all."""
    if spec.shape or not spec.dtype.startswith(("float", "string")):
        return None
    return np.array(None if spec.dtype == "string" else np.nan, dtype=spec.numpy_dtype)
