"""Parquet files of a Delta table, written by workers: large row groups, blobs as they are, statistics of the rest."""

from __future__ import annotations

import errno
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakemill_udfs.errors import RunError, TableError
from lakemill_udfs.files import URI, filesystem

GROUP_BYTES = 64 * 2**20
GROUP_ROWS = 1_000_000
SMALL_FILE_BYTES = 2**20
SMALL_CHUNK_BYTES = 2**18
"""Batches that are smaller are put together before they are encoded: Parquet's writer does each of them by itself."""

LONGEST_BOUND = 32
"""Characters of a text that statistics keep, as Spark's do."""


@dataclass(frozen=True)
class WrittenFile:
    """A file that waits for the commit that makes it part of its table.

    Args:
        path: Absolute path or URI.
        size: In bytes.
        rows: How many.
        modified_ms: When it was written, in milliseconds since 1970.
        statistics: Delta's, as JSON.
    """

    path: str
    size: int
    rows: int
    modified_ms: int
    statistics: str


def _write_error(path: str, error: OSError) -> RunError:
    if error.errno == errno.ENOSPC:
        return RunError(
            "DISK_FULL", f"the disk of '{path}' is full.", hint="free it: nothing of this batch was written."
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return RunError("STORAGE_DENIED", f"'{path}' may not be written.", hint="check the storage's permissions.")
    return RunError(
        "STORAGE_WRITE",
        f"the file '{path}' cannot be written ({type(error).__name__}).",
        hint="check the storage's permissions and its free space.",
    )


class FileWriter:
    """Writes one file while the context lasts; without rows there is no file, and an error removes what was written.

    Args:
        folder: Where to: absolute path or URI.
        schema: The table's; batches are cast to it by name.
        group_bytes: Of a row group, about; as much waits in memory.

    Raises:
        RunError: ``STORAGE_DENIED``, ``DISK_FULL``, ``STORAGE_WRITE``.
    """

    def __init__(self, folder: str, schema: pa.Schema, group_bytes: int = GROUP_BYTES) -> None:
        self.schema, self._group_bytes = schema, group_bytes
        self.path = f"{folder.rstrip('/')}/part-{uuid.uuid4()}.parquet"
        self.written: WrittenFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = self._rows = 0

    def __enter__(self) -> FileWriter:
        return self

    def write(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add rows, and return them; memory holds one row group."""
        if not batch.num_rows:
            return batch
        if not batch.schema.equals(self.schema):
            batch = batch.select(self.schema.names).cast(self.schema)
        self._waiting.append(batch)
        self._bytes, self._rows = self._bytes + batch.nbytes, self._rows + batch.num_rows
        if self._bytes >= self._group_bytes or self._rows >= GROUP_ROWS:
            self._flush()
        return batch

    def take(self) -> tuple[list[pa.RecordBatch], int]:
        """Give back the rows and their bytes, for another file, where none is written yet; else there are none."""
        if self._writer is not None:
            return [], 0
        taken, self._waiting = self._waiting, []
        return taken, self._bytes

    def _flush(self) -> None:
        try:
            if self._writer is None:
                store, inside = filesystem(self.path)
                if not URI.match(self.path):
                    Path(inside).parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(inside, self.schema, filesystem=store, **settings(self.schema))
            rows = pa.Table.from_batches(self._waiting, self.schema)
            if self._bytes < SMALL_CHUNK_BYTES * len(self._waiting):
                rows = rows.combine_chunks()
            self._writer.write_table(rows, row_group_size=GROUP_ROWS)
        except OSError as error:
            raise _write_error(self.path, error) from error
        self._waiting, self._bytes, self._rows = [], 0, 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if kind is None and self._waiting:
            self._flush()
        if self._writer is None:
            return
        self._writer.close()
        store, inside = filesystem(self.path)
        if kind is not None:
            store.delete_file(inside)
            return
        footer = self._writer.writer.metadata if hasattr(self._writer.writer, "metadata") else None
        if footer is None:
            footer = pq.read_metadata(inside, filesystem=store)
        size = int(store.get_file_info(inside).size)
        now = int(time.time() * 1000)
        self.written = WrittenFile(self.path, size, footer.num_rows, now, statistics(footer, self.schema))


def joined(files: Sequence[WrittenFile], folder: str, schema: pa.Schema) -> list[WrittenFile]:
    """Return the files, with small ones copied into one: a table of many small files is slow to read.

    Args:
        files: Of one commit.
        folder: Where to write.
        schema: Of the rows.
    """
    small = [file for file in files if file.size < SMALL_FILE_BYTES]
    if len(small) < 2:
        return list(files)
    with FileWriter(folder, schema) as writer:
        for file in small:
            store, inside = filesystem(file.path)
            with pq.ParquetFile(inside, filesystem=store) as opened:
                for batch in opened.iter_batches(use_threads=False):
                    writer.write(batch)
    discard(small)
    large = [file for file in files if file.size >= SMALL_FILE_BYTES]
    return large if writer.written is None else [*large, writer.written]


def discard(files: Iterable[WrittenFile]) -> None:
    """Remove files that no commit will take; one that cannot be removed is left to VACUUM."""
    for file in files:
        store, inside = filesystem(file.path)
        try:
            store.delete_file(inside)
        except OSError:
            continue


def settings(schema: pa.Schema) -> dict[str, Any]:
    """Return how Parquet is written: blobs neither compressed, nor in a dictionary, nor with statistics.

    Floats are in no dictionary either: few repeat, and to find that out took a fifth of the time of writing.
    """
    leaves = list(_leaves(schema))
    small = {path: kind for path, kind in leaves if not _is_blob(kind)}
    return {
        "compression": {path: "NONE" if _is_blob(kind) else "SNAPPY" for path, kind in leaves},
        "use_dictionary": [path for path, kind in small.items() if not pa.types.is_floating(kind)] or False,
        "write_statistics": list(small) or False,
        "store_schema": False,  # the table's schema is Delta's; a file's own Arrow types would only contradict it
        "version": "2.6",
        "coerce_timestamps": "us",
    }


def check_types(table: str, schema: pa.Schema) -> None:
    """Refuse columns that Delta has no type for: delta-rs would write them as something else.

    Raises:
        TableError: ``COLUMN_TYPE``.
    """
    for path, kind in _leaves(schema):
        test = pa.types
        is_delta = (
            test.is_signed_integer(kind)
            or kind in (pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.bool_(), pa.date32())
            or test.is_decimal128(kind)
            or (test.is_timestamp(kind) and kind.unit == "us" and kind.tz in (None, "UTC"))
        )
        if not is_delta:
            raise TableError(
                "COLUMN_TYPE",
                f"'{path}' of '{table}' has the type {kind}, which Delta has not.",
                hint="it has signed integers, float, double, text, bytes, dates, times in microseconds and decimals.",
            )


def has_blobs(schema: pa.Schema) -> bool:
    """Return whether a column, or a field in it, is binary."""
    return any(_is_blob(kind) for _, kind in _leaves(schema))


def statistics(footer: pq.FileMetaData, schema: pa.Schema) -> str:
    """Return Delta's statistics of a file: its rows, and bounds and nulls of the small columns."""
    found: dict[str, Any] = {"numRecords": footer.num_rows}
    columns = {footer.schema.column(number).path: number for number in range(footer.num_columns)}
    for path, kind in _scalars(schema):
        number = columns.get(".".join(path))
        if number is None or _is_blob(kind):
            continue
        parts = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
        if any(part is None or not part.has_null_count for part in parts):
            continue
        _put(found, "nullCount", path, sum(part.null_count for part in parts))
        bounded = [part for part in parts if part.has_min_max]
        if _is_bounded(kind) and bounded and all(part.has_min_max or not part.num_values for part in parts):
            low, high = min(part.min for part in bounded), max(part.max for part in bounded)
            _put(found, "minValues", path, _bound(low, up=False))
            _put(found, "maxValues", path, _bound(high, up=True))
    return json.dumps(found)


def _put(found: dict[str, Any], name: str, path: tuple[str, ...], value: Any) -> None:
    if value is None:
        return
    for part in (name, *path[:-1]):
        found = found.setdefault(part, {})
    found[path[-1]] = value


def _is_bounded(kind: pa.DataType) -> bool:
    """Return whether bounds are kept: of floats they are not, as a reader would forget the NaN above them."""
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind))


def _bound(value: Any, *, up: bool) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, int) else str(value)
    if len(value) <= LONGEST_BOUND:
        return value
    return None if up else value[:LONGEST_BOUND]  # a cut text is below the whole one: no bound from above


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the columns of a Parquet file by their path in it, with their types."""

    def inside(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from inside(f"{path}.{field.name}", field.type)
        elif pa.types.is_map(kind):
            yield from inside(f"{path}.key_value.key", kind.key_type)
            yield from inside(f"{path}.key_value.value", kind.item_type)
        elif pa.types.is_list(kind):
            yield from inside(f"{path}.list.element", kind.value_type)
        else:
            yield path, kind

    for field in schema:
        yield from inside(field.name, field.type)


def _scalars(schema: pa.Schema) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    """Yield the columns and fields of structs that statistics can be kept of."""

    def inside(path: tuple[str, ...], kind: pa.DataType) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from inside((*path, field.name), field.type)
        elif not pa.types.is_nested(kind):
            yield path, kind

    for field in schema:
        yield from inside((field.name,), field.type)


def _is_blob(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
