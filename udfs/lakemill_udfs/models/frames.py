"""Tensors by name as one Arrow frame: what two processes of this machine hand each other, read without a copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.models.model import Arrays
from lakemill_udfs.tensors.ragged import from_rows

KIND, DTYPE, SHAPE = b"kind", b"dtype", b"shape"


def write_frame(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write tensors into a new file.

    Args:
        path: A file in memory (``/dev/shm``) or on disk.
        arrays: Numbers ``(n, ...)``; objects that Arrow knows ``(n, ...)``; or one array, or None, a row ``(n,)``.
    """
    fields, columns = [], []
    for name, array in arrays.items():
        kind, values, about = _column(array)
        column = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
        fields.append(pa.field(name, column.type, metadata={KIND: kind, **about}))
        columns.append(column)
    batch = pa.record_batch(columns, schema=pa.schema(fields))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_frame(path: Path) -> Arrays:
    """Return the tensors of a file and remove it; their memory is the file's until they are gone."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    path.unlink()
    fields = list(batch.schema)
    return {field.name: _array(field, batch.column(at).flatten()) for at, field in enumerate(fields)}


def _column(array: NDArray[Any]) -> tuple[bytes, pa.Array, dict[bytes, bytes]]:
    shape = {SHAPE: ",".join(map(str, array.shape)).encode()}
    if array.dtype != object:
        flat = np.ascontiguousarray(array)
        about = {DTYPE: array.dtype.str.encode(), **shape}
        return b"tensor", pa.Array.from_buffers(pa.uint8(), flat.nbytes, [None, pa.py_buffer(flat)]), about
    full = [cell for cell in array.ravel() if cell is not None]
    if full and all(isinstance(cell, np.ndarray) and cell.dtype != object for cell in full):
        rows = [None if cell is None else {"data": cell.tobytes(), "shape": list(cell.shape)} for cell in array]
        kind = pa.struct([("data", pa.large_binary()), ("shape", pa.list_(pa.int64()))])
        return b"ragged", pa.array(rows, kind), {DTYPE: full[0].dtype.str.encode(), **shape}
    return b"objects", pa.array([_plain(cell) for cell in array.ravel().tolist()]), shape


def _plain(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def _array(field: pa.Field, values: pa.Array) -> NDArray[Any]:
    about = field.metadata
    shape = tuple(int(size) for size in about[SHAPE].decode().split(",") if size)
    if about[KIND] == b"tensor":
        flat: NDArray[Any] = np.frombuffer(values.buffers()[1], np.uint8, len(values), values.offset)
        tensor: NDArray[Any] = flat.view(np.dtype(about[DTYPE].decode())).reshape(shape)
        return tensor
    if about[KIND] == b"ragged":
        return from_rows([None if row is None else _tensor(row, about[DTYPE]) for row in values.to_pylist()])
    cells = values.to_pylist()
    return from_rows([np.asarray(cell, object) if isinstance(cell, list) else cell for cell in cells]).reshape(shape)


def _tensor(row: Mapping[str, Any], dtype: bytes) -> NDArray[Any]:
    return np.frombuffer(row["data"], np.dtype(dtype.decode())).reshape(row["shape"])
