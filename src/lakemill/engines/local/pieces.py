"""Files cut into pieces, ever smaller ones towards the end, so that no worker waits long for the last one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from lakemill.engines.local.parquet import open_parquet
from lakemill.engines.local.tables import DataFile

PIECES_PER_WORKER = 8
LARGEST_PIECE_BYTES = 16 * 2**20
LEFT_SHARES = 2
"""A piece is that part of what is left, for each worker; the last ones are as small as ``SMALLEST_SHARES`` allow."""

SMALLEST_SHARES = 96
"""The smallest piece is that part of all, for each worker."""

MOST_CUTS, MOST_EVEN_CUTS = 32, 16
"""Pieces of one row group at most: each worker reads the group from its start, if only once."""


@dataclass(frozen=True)
class Part:
    """A range of rows of one file.

    Args:
        file: Which file.
        first: Position of the first row.
        rows: How many rows; None is to the file's end.
    """

    file: DataFile
    first: int = 0
    rows: int | None = None


@dataclass(frozen=True)
class Piece:
    """What one worker reads and scores in one go.

    Args:
        parts: Ranges of rows, in the files' order.
    """

    parts: tuple[Part, ...]


def cut(
    files: Sequence[DataFile], columns: Iterable[str], *, workers: int, least_rows: int = 1, evenly: bool = False
) -> Iterator[Piece]:
    """Yield pieces of a few MiB, in the files' order; footers are read of large files only, when their turn comes.

    They become smaller towards the end: half of what is left is always one piece a worker, so the last ones, on which a
    worker may be alone, are short.

    Args:
        files: What to cut.
        columns: Columns of the files that are read, by the names in the files; fields of structs as ``out.label``.
        workers: How many read at a time.
        least_rows: Rows of a piece at least, where there are as many: a model's batch.
        evenly: All pieces cost about the same.
    """
    if not files:
        return
    share = _share(max(files, key=lambda file: file.size), tuple(columns))
    total = share * sum(file.size for file in files)
    left = total

    def target() -> float:
        wanted = total / PIECES_PER_WORKER if evenly else max(left / LEFT_SHARES, total / SMALLEST_SHARES)
        return max(1.0, min(wanted / workers, LARGEST_PIECE_BYTES))

    parts: list[Part] = []
    size = rows = 0.0
    for file in files:
        for part, part_bytes, part_rows in _parts(file, share, target, least_rows, evenly=evenly):
            parts.append(part)
            left, size, rows = left - part_bytes, size + part_bytes, rows + part_rows
            if size >= target() and rows >= least_rows:
                yield Piece(tuple(parts))
                parts, size, rows = [], 0.0, 0.0
    if parts:
        yield Piece(tuple(parts))


def _parts(
    file: DataFile, share: float, target: Callable[[], float], least_rows: int, *, evenly: bool
) -> Iterator[tuple[Part, float, int]]:
    """Yield a file's parts, each with its bytes and rows."""
    size = file.size * share
    if file.rows is not None and (size <= 1.5 * target() or file.rows < 2 * least_rows):
        yield Part(file), size, file.rows
        return
    with open_parquet(file.path) as opened:
        footer = opened.metadata
    first = 0
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group).num_rows
        group_bytes = size * rows / max(1, footer.num_rows)
        ranges = (
            _even(rows, group_bytes / target(), least_rows)
            if evenly
            else _smaller(rows, group_bytes, target, least_rows)
        )
        for start, end in ranges:
            yield Part(file, first + start, end - start), group_bytes * (end - start) / rows, end - start
        first += rows


def _even(rows: int, cuts: float, least_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of a row group's rows, all about as long."""
    count = max(1, min(round(cuts), rows // max(1, least_rows), MOST_EVEN_CUTS))
    for number in range(count):
        start, end = rows * number // count, rows * (number + 1) // count
        if end > start:
            yield start, end


def _smaller(rows: int, group_bytes: float, target: Callable[[], float], least_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of a row group's rows, each as long as is wanted when its turn comes, and of whole batches."""
    start, least_rows = 0, max(1, least_rows)
    while start < rows:
        wanted = math.ceil(max(rows * target() / group_bytes, rows / MOST_CUTS) / least_rows) * least_rows
        end = start + wanted if rows - start >= 1.5 * wanted else rows
        yield start, end
        start = end


def _share(file: DataFile, columns: tuple[str, ...]) -> float:
    """Return which part of a file's bytes belongs to the columns."""
    with open_parquet(file.path) as opened:
        footer = opened.metadata
    if not footer.num_row_groups:
        return 1.0
    group = footer.row_group(0)
    wanted = sum(group.column(number).total_compressed_size for number in _indices(group, columns))
    total = sum(group.column(number).total_compressed_size for number in range(group.num_columns))
    return float(max(wanted, 1) / max(total, 1))


def _indices(group: pq.RowGroupMetaData, columns: tuple[str, ...]) -> list[int]:
    paths = [group.column(number).path_in_schema for number in range(group.num_columns)]
    return [
        number
        for number, path in enumerate(paths)
        if any(path == column or path.startswith(f"{column}.") for column in columns)
    ]
