"""A Delta table at one version, as training reads it: blocks of rows, whose numbers are known before any is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from lakemill.config.row_files import recorded_roots
from lakemill.engines import table_names
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.local.parquet import parquet_rows
from lakemill.engines.local.pieces import Part, Piece, cut
from lakemill.engines.local.predicates import Predicate
from lakemill.engines.local.reading import Scan, read_piece
from lakemill.engines.local.tables import DataFile
from lakemill.training.epochs import Segment

READERS = 4
"""Pieces are cut for so many readers on any machine, so that each rank of a training gets the same ones."""

BATCH_BYTES = 8 * 2**20
FEWEST_ROWS, MOST_ROWS = 32, 65_536
"""Of one record batch, which a slice of it keeps in memory whole; and of a block, where there are as many."""


@dataclass(frozen=True)
class Block:
    """Rows that are read together.

    Args:
        piece: Where they are.
        rows: How many of them count.
    """

    piece: Piece
    rows: int


@dataclass(frozen=True)
class TrainingTable:
    """The rows of a table's version that are trained on. It can be pickled, and needs no delta-rs then.

    Args:
        table: Its name or path, as it was given.
        location: Absolute path or URI.
        id: Delta's id of the table.
        version: Of the table.
        where: SQL that kept rows; None for all.
        schema: Of its columns, or of those that a DataFrame chose.
        blocks: The rows, in the table's order.
        roots: Folders and URIs below which its rows may name files.
    """

    table: str
    location: str
    id: str
    version: int
    where: str | None
    schema: pa.Schema
    blocks: tuple[Block, ...]
    roots: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(block.rows for block in self.blocks)

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files that hold them."""
        return tuple({part.file.path: part.file for block in self.blocks for part in block.piece.parts}.values())

    def read(self, segment: Segment, columns: Sequence[str]) -> pa.Table:
        """Return a segment's rows.

        Raises:
            RunError: ``SOURCE_VERSIONS_GONE`` if a file was vacuumed, ``STORAGE_READ`` if it cannot be read.
        """
        block, kept, position = self.blocks[segment.block], [], 0
        scan = Scan(self.schema, tuple(columns), batch_rows=self._batch_rows)
        for batch in read_piece(block.piece, scan):
            start, stop = max(segment.start - position, 0), min(segment.stop - position, batch.num_rows)
            if start < stop:
                kept.append(batch.slice(start, stop - start))
            position += batch.num_rows
            if position >= segment.stop:
                break
        return pa.Table.from_batches(kept)

    @cached_property
    def _batch_rows(self) -> int:
        row_bytes = sum(file.size for file in self.files) / max(1, self.rows)
        return max(FEWEST_ROWS, min(int(BATCH_BYTES / max(1.0, row_bytes)), MOST_ROWS))


def open_training_table(
    table: str, version: int | str | None = None, where: str | None = None, columns: Sequence[str] | None = None
) -> TrainingTable:
    """Pin a table's version, and count its rows.

    Only the columns of ``where`` are read, and the footers of large files.

    Args:
        table: Path or URI.
        version: A number, or a time in ISO 8601; None is the newest.
        where: SQL predicate.
        columns: Those that are trained on, in this order; None is all.

    Raises:
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``.
        ConfigError: ``WHERE_INVALID``.
        SetupError: ``ENGINE_LOCAL`` for what delta-rs does not read right.
    """
    with LocalEngine() as engine:
        snapshot = engine.snapshot(table, version)
        if snapshot is None:
            raise table_names.not_found(table)
        files, schema = snapshot.opened.files(), snapshot.opened.schema
        if where is not None:
            predicate = Predicate.read(where, schema)
            rows = replace(engine.rows(snapshot), files=tuple(snapshot.opened.files(predicate)))
            files = list(rows.where(where).chosen([], lambda frame: frame).files)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
    names = Scan(schema, tuple(schema.names)).file_columns
    blocks = [
        Block(piece, _rows_of(piece))
        for piece in cut(files, names, workers=READERS, least_rows=FEWEST_ROWS, evenly=True)
    ]
    return TrainingTable(
        table,
        snapshot.location,
        snapshot.id,
        snapshot.version,
        where,
        schema,
        tuple(block for block in blocks if block.rows),
        recorded_roots(snapshot.properties),
    )


def _rows_of(piece: Piece) -> int:
    return sum(_part_rows(part) for part in piece.parts)


def _part_rows(part: Part) -> int:
    rows = part.rows
    if rows is None:
        rows = (part.file.rows if part.file.rows is not None else parquet_rows(part.file.path)) - part.first
    dropped = part.file.dropped_rows(part.first + rows)
    return rows if dropped is None else rows - int(dropped[part.first :].sum())
