"""Files cut into pieces that cost about the same, so that no worker waits long for the last one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from lakemill.engines.local.parquet import open_parquet
from lakemill.engines.local.tables import DataFile

PIECES_PER_WORKER = 8
LARGEST_PIECE_BYTES = 16 * 2**20
MOST_CUTS = 16
"""Pieces of one row group at most: each of them reads the group from its start."""


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


def cut(files: Sequence[DataFile], columns: Iterable[str], *, workers: int, least_rows: int = 1) -> Iterator[Piece]:
    """Yield pieces of a few MiB, in the files' order; footers are read of large files only, when their turn comes.

    Args:
        files: What to cut.
        columns: Columns of the files that are read, by the names in the files; fields of structs as ``out.label``.
        workers: How many read at a time.
        least_rows: Rows of a piece at least, where there are as many: a model's batch.
    """
    if not files:
        return
    share = _share(max(files, key=lambda file: file.size), tuple(columns))
    total = share * sum(file.size for file in files)
    target = max(1.0, min(total / (PIECES_PER_WORKER * workers), LARGEST_PIECE_BYTES))
    parts: list[Part] = []
    size = rows = 0.0
    for file in files:
        for part, part_bytes, part_rows in _parts(file, share, target, least_rows):
            parts.append(part)
            size, rows = size + part_bytes, rows + part_rows
            if size >= target and rows >= least_rows:
                yield Piece(tuple(parts))
                parts, size, rows = [], 0.0, 0.0
    if parts:
        yield Piece(tuple(parts))


def _parts(file: DataFile, share: float, target: float, least_rows: int) -> Iterator[tuple[Part, float, int]]:
    """Yield a file's parts, each with its bytes and rows."""
    size = file.size * share
    if file.rows is not None and (size <= 1.5 * target or file.rows < 2 * least_rows):
        yield Part(file), size, file.rows
        return
    with open_parquet(file.path) as opened:
        footer = opened.metadata
    first = 0
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group).num_rows
        group_bytes = size * rows / max(1, footer.num_rows)
        cuts = max(1, min(round(group_bytes / target), rows // max(1, least_rows), MOST_CUTS))
        for number in range(cuts):
            start, end = rows * number // cuts, rows * (number + 1) // cuts
            if end > start:
                yield Part(file, first + start, end - start), group_bytes / cuts, end - start
        first += rows


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
