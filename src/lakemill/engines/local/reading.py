"""Rows of a table out of its files, as the table's schema has them. Workers run this; it needs no delta-rs."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakemill.engines.local.conforming import column, conformed_column, name_in_file, without_views
from lakemill.engines.local.own_columns import own_column
from lakemill.engines.local.parquet import open_parquet, storage_errors
from lakemill.engines.local.pieces import Part, Piece
from lakemill.engines.local.predicates import Predicate
from lakemill_udfs.errors import RunError

POSITION = own_column("position")


@dataclass(frozen=True)
class Scan:
    """What is read of a table. It can be pickled.

    Args:
        schema: The table's.
        columns: Columns to read, in order; ``out.label`` is the field of a struct, unless a column is called so.
        where: Keeps the rows for which it is true.
        batch_rows: Rows of one record batch at most.
        positions: Add ``POSITION``: the row's place in its file.
    """

    schema: pa.Schema
    columns: tuple[str, ...]
    where: Predicate | None = None
    batch_rows: int = 65_536
    positions: bool = False

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Return what is read of a file, by the names in the file."""
        wanted = [self.path(name) for name in self.columns]
        wanted += [path for path, _ in self.where.columns] if self.where is not None else []
        return tuple(dict.fromkeys(".".join(_physical(self.schema, path)) for path in wanted))

    def path(self, name: str) -> tuple[str, ...]:
        """Return where a column stands: its name, or those of a struct and its field."""
        return (name,) if name in self.schema.names else tuple(name.split(".", 1))


def read_piece(piece: Piece, scan: Scan) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a piece; memory holds one batch.

    Args:
        piece: Which rows.
        scan: Which columns of them.

    Raises:
        RunError: ``SOURCE_VERSIONS_GONE``, ``STORAGE_READ``.
    """
    for part in piece.parts:
        yield from _read_part(part, scan)


def _read_part(part: Part, scan: Scan) -> Iterator[pa.RecordBatch]:
    opened = _opened(part, scan)
    rows = opened.footer.num_rows
    dropped = part.file.dropped_rows(rows)
    end = rows if part.rows is None else part.first + part.rows
    try:
        for position, batch in opened.rows(part.first, end):
            kept = without_views(batch)
            places = np.arange(position, position + batch.num_rows)
            counted = None if dropped is None else ~dropped[position : position + batch.num_rows]
            if (found := _selected(kept, part, scan, places, counted)).num_rows:
                yield found
    finally:
        if part.rows is not None and part.first < opened.position == end < rows:
            _OPEN.last = opened
        else:
            opened.close()


class _OpenFile:
    """A file that is being read, from one of its row groups on, which then goes on with a later part of it.

    Args:
        path: Of the file.
        scan: What is read of it.
        first: Position of the first row that is wanted.
    """

    def __init__(self, path: str, scan: Scan, first: int) -> None:
        self.path, self.columns, self.batch_rows = path, scan.file_columns, scan.batch_rows
        self._stack = ExitStack()
        opened = self._stack.enter_context(open_parquet(path))
        self.footer: pq.FileMetaData = opened.metadata
        groups = range(self.footer.num_row_groups)
        self._starts = [0, *accumulate(self.footer.row_group(group).num_rows for group in groups)]
        group = self._group(first)
        self.position = self._starts[group]
        self._batches = opened.iter_batches(
            scan.batch_rows, row_groups=list(groups[group:]), columns=list(scan.file_columns), use_threads=False
        )
        self._left: pa.RecordBatch | None = None

    def _group(self, first: int) -> int:
        """Return the number of the row group that holds a row."""
        return max(0, bisect_right(self._starts, first) - 1)

    def leads_to(self, part: Part, scan: Scan) -> bool:
        """Return whether to read on from here is no more than to read the part's row group from its start."""
        is_same = (self.path, self.columns, self.batch_rows) == (part.file.path, scan.file_columns, scan.batch_rows)
        return is_same and self._starts[self._group(part.first)] <= self.position <= part.first

    def rows(self, first: int, end: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows between two positions, each batch with that of its first row."""
        while self.position < end and (batch := self._next()) is not None:
            start = self.position
            if batch.num_rows > end - start:
                self._left, batch = batch.slice(end - start), batch.slice(0, end - start)
            self.position += batch.num_rows
            if self.position > first:
                skipped = max(0, first - start)
                yield start + skipped, batch.slice(skipped)

    def _next(self) -> pa.RecordBatch | None:
        batch, self._left = self._left, None
        with storage_errors(self.path):
            return batch if batch is not None else next(self._batches, None)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


_OPEN = threading.local()
"""``last``: the file that a worker read a part of. The next part is most often of the same row group, further on: it
goes on there, where to begin anew would decode once more what is before it."""


def _opened(part: Part, scan: Scan) -> _OpenFile:
    last: _OpenFile | None = getattr(_OPEN, "last", None)
    _OPEN.last = None
    if last is not None:
        if last.leads_to(part, scan):
            return last
        last.close()
    return _OpenFile(part.file.path, scan, part.first)


def _selected(
    batch: pa.RecordBatch, part: Part, scan: Scan, places: NDArray[np.int64], counted: NDArray[np.bool_] | None
) -> pa.RecordBatch:
    """Return the rows that count and that ``where`` keeps, with the columns asked for."""
    tops = dict.fromkeys(scan.path(name)[0] for name in scan.columns)
    tops |= dict.fromkeys(scan.where.names if scan.where is not None else ())
    fields = [scan.schema.field(name) for name in tops]
    partition = dict(part.file.partition)
    try:
        arrays = [
            _repeated(partition[field.name], field, batch.num_rows)
            if field.name in partition
            else conformed_column(column(batch, name_in_file(field)), field, batch.num_rows)
            for field in fields
        ]
    except pa.ArrowException as error:
        raise RunError(
            "STORAGE_READ",
            f"the columns of '{part.file.path}' do not have the table's types ({type(error).__name__}).",
            hint="write the file again from its source.",
        ) from error
    if scan.positions:
        arrays, fields = [*arrays, pa.array(places)], [*fields, pa.field(POSITION, pa.int64())]
    if not arrays:
        return batch.select([]) if counted is None else _rows_alone(int(counted.sum()))
    table = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([field.with_nullable(True) for field in fields]))
    if counted is not None:  # only now: Arrow does not filter some of the types that delta-rs writes into files
        table = table.filter(pa.array(counted))
    if scan.where is not None:
        table = scan.where.filter(table)
    if not scan.columns and not scan.positions:  # to be counted
        return _rows_alone(table.num_rows)
    found = [_at(table, scan.path(name)) for name in scan.columns]
    names = [*scan.columns]
    if scan.positions:
        found, names = [*found, _at(table, (POSITION,))], [*names, POSITION]
    return pa.RecordBatch.from_arrays(
        [array for array, _ in found],
        schema=pa.schema([field.with_name(name) for name, (_, field) in zip(names, found, strict=True)]),
    )


def _rows_alone(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))


def _at(table: pa.RecordBatch, path: Sequence[str]) -> tuple[pa.Array, pa.Field]:
    """Return a column, or a field of a struct (null where the struct is), with its metadata."""
    array, field = table.column(path[0]), table.schema.field(path[0])
    if len(path) == 1:
        return array, field
    inner = field.type.field(path[1])
    return pc.struct_field(array, [path[1]]), pa.field(inner.name, inner.type, metadata=inner.metadata)


def _repeated(value: object, field: pa.Field, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, field.type), rows)


def _physical(schema: pa.Schema, path: Sequence[str]) -> list[str]:
    field = schema.field(path[0])
    names = [name_in_file(field)]
    for name in path[1:]:
        field = field.type.field(name)
        names.append(name_in_file(field))
    return names
