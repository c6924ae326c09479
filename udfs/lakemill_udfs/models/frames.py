"""Tensors by name as one Arrow frame: what two processes of this machine hand each other, read without a copy."""

from __future__ import annotations

import mmap
import os
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
    with pa.OSFile(str(path), "wb") as sink:
        _write(sink, _batch(arrays))


def read_frame(path: Path) -> Arrays:
    """Return the tensors of a file and remove it; their memory is the file's until they are gone."""
    with pa.memory_map(str(path)) as source:
        arrays = _arrays(source)
    path.unlink()
    return arrays


class LendingFile:
    """A file for one frame after the other, written over where it is there still: new memory takes longer than a copy.

    Args:
        path: Of this writer's alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._memory: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write tensors, as ``write_frame`` does, once the reader of those before has given them back."""
        batch, counted = _batch(arrays), pa.MockOutputStream()
        _write(counted, batch)
        if self._memory is None or len(self._memory) < counted.size() or not self.path.exists():
            self.path.unlink(missing_ok=True)
            self._memory = _mapped(self.path, counted.size())
        with pa.FixedSizeBufferWriter(pa.py_buffer(self._memory)) as sink:
            _write(sink, batch)


class LentFrame:
    """The tensors of a ``LendingFile``, whose reader gives it back.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def arrays(self) -> Arrays:
        """Return the tensors; their memory is the file's."""
        return _arrays(pa.BufferReader(pa.py_buffer(self._memory)))

    def give_back(self) -> None:
        """Leave the file to the next frame; remove it if an array of it is still held, whose memory it then stays."""
        try:
            self._memory.close()
        except BufferError:
            self._path.unlink()


def _mapped(path: Path, size: int) -> mmap.mmap:
    """Make and map a file, all of it there: without that, full memory would end the process in mid-copy."""
    with path.open("x+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _batch(arrays: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
    fields, columns = [], []
    for name, array in arrays.items():
        kind, values, about = _column(array)
        column = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
        fields.append(pa.field(name, column.type, metadata={KIND: kind, **about}))
        columns.append(column)
    return pa.record_batch(columns, schema=pa.schema(fields))


def _write(sink: Any, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _arrays(source: Any) -> Arrays:
    batch = pa.ipc.open_stream(source).read_next_batch()
    return {field.name: _array(field, batch.column(at).flatten()) for at, field in enumerate(batch.schema)}


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
