"""Rows of a table on this engine: files, which of their rows count, and what is to be made of them; read when needed.

Which rows count is a bit a row, beside each file. So to choose rows by a key reads the key's columns only, here, and
workers then read each chosen row once, blobs and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakemill.engines.local.conforming import of_rows
from lakemill.engines.local.frames import frame_of
from lakemill.engines.local.groups import call_groups
from lakemill.engines.local.own_columns import FILE, ROW
from lakemill.engines.local.parquet import parquet_rows
from lakemill.engines.local.pieces import PIECES_PER_WORKER, Part, Piece, cut
from lakemill.engines.local.pool import Tell, Workers
from lakemill.engines.local.predicates import Predicate
from lakemill.engines.local.reading import POSITION, Scan, read_piece
from lakemill.engines.local.result_columns import declared_columns
from lakemill.engines.local.tables import DataFile
from lakemill.engines.local.work import MadePiece, PieceFunction, PieceWork, make_pieces
from lakemill.engines.local.writing import FileWriter, WrittenFile
from lakemill.engines.relations import KeyFaults, Rows

if TYPE_CHECKING:
    import polars as pl

DEALT_FILE_BYTES, DEALT_WAITING_BYTES = 64 * 2**20, 4 * 2**20
"""Of a file with whole groups, about; and of its rows that wait in memory while they are dealt out."""

Choose: TypeAlias = "Callable[[pl.DataFrame], pl.DataFrame]"
"""From a file's rows, with ``POSITION``, to those of them that count."""


@dataclass(frozen=True)
class Room:
    """What rows need of their engine.

    Args:
        workers: How work on them is spread.
        scratch: Folder for results on the way, which the engine removes.
    """

    workers: Workers
    scratch: Path


@dataclass(frozen=True)
class LocalRows:
    """Rows that are not read yet.

    Args:
        room: What they need of their engine.
        files: Where they are.
        file_schema: Of the files' rows.
        columns: Which columns they have; None for all.
        predicate: SQL that keeps a row if it is true.
        function: What is made of them in workers; None for the rows as they are.
        made_schema: Of what the function makes.
        pieces: How they are cut, where that is given.
        has_versions: Whether each row knows the commit that made it.
    """

    room: Room
    files: Sequence[DataFile]
    file_schema: pa.Schema
    columns: tuple[str, ...] | None = None
    predicate: str | None = None
    function: PieceFunction | None = None
    made_schema: pa.Schema | None = None
    pieces: tuple[Piece, ...] | None = None
    has_versions: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The columns, with their metadata."""
        return self.made_schema if self.made_schema is not None else self._selected_schema

    @property
    def _selected_schema(self) -> pa.Schema:
        scan = self.scan()
        fields = [(name, scan.path(name)) for name in scan.columns]
        return pa.schema([of_rows(_field_at(self.file_schema, path)).with_name(name) for name, path in fields])

    def scan(self, columns: Sequence[str] | None = None, *, batch_rows: int = 65_536, positions: bool = False) -> Scan:
        """Return what is read of the files.

        Args:
            columns: In place of the rows' own.
            batch_rows: Rows of one record batch at most.
            positions: Whether each row comes with its place in its file.
        """
        names = columns if columns is not None else self.columns
        where = None if self.predicate is None else Predicate.read(self.predicate, self.file_schema)
        return Scan(
            self.file_schema, tuple(self.file_schema.names if names is None else names), where, batch_rows, positions
        )

    def where(self, predicate: str) -> LocalRows:
        """Keep the rows for which an SQL predicate is true."""
        rows = self.settled()
        Predicate.read(predicate, rows.file_schema)
        both = predicate if rows.predicate is None else f"({rows.predicate}) AND ({predicate})"
        return replace(rows, predicate=both)

    def select(self, columns: Sequence[str]) -> LocalRows:
        """Keep these columns."""
        rows = replace(self.settled(), columns=tuple(columns))
        _ = rows.schema  # a column that is not there is said now
        return rows

    def limit(self, count: int) -> LocalRows:
        """Keep at most ``count`` rows."""
        left = count

        def first(frame: pl.DataFrame) -> pl.DataFrame:
            nonlocal left
            kept = frame.head(left)
            left -= kept.height
            return kept

        return self.chosen([], first, lambda: left <= 0)

    def newest(self, count: int, by: str, then: Sequence[str]) -> LocalRows:
        """Keep the ``count`` rows with the greatest ``by``, in the order of ``then``."""
        import polars as pl

        frames = []
        for number, frame in enumerate(self._frames([by])):
            frames.append(frame.with_columns(pl.lit(number).alias(FILE)))
        if not frames:
            return self
        best = pl.concat(frames).sort(by, descending=True, nulls_last=True).head(count)
        places = {key[0]: part for key, part in best.partition_by(FILE, as_dict=True).items()}
        numbers = iter(range(len(self.files)))
        kept = self.chosen(
            [], lambda frame: frame.join(places.get(next(numbers), best.clear()), on=POSITION, how="semi")
        )
        order = [(name, "descending") for name in (by,)] + [(name, "ascending") for name in then]
        wide = kept.select([*kept.schema.names, *(n for n, _ in order if n not in kept.schema.names)]).to_arrow()
        table = (
            frame_of(wide)
            .with_row_index(ROW)
            .sort([name for name, _ in order], descending=[how == "descending" for _, how in order], nulls_last=True)
        )
        return given(self.room, wide.take(table[ROW].to_arrow()).select(kept.schema.names))

    def only(self, others: Rows, columns: Sequence[str]) -> LocalRows:
        """Keep the rows whose ``columns`` some row of ``others`` has; null is equal to null."""
        return self._joined(cast(LocalRows, others), columns, "semi")

    def without(self, others: Rows, columns: Sequence[str]) -> LocalRows:
        """Keep the rows whose ``columns`` no row of ``others`` has; null is equal to null."""
        return self._joined(cast(LocalRows, others), columns, "anti")

    def _joined(self, others: LocalRows, columns: Sequence[str], how: Literal["semi", "anti"]) -> LocalRows:
        import polars as pl

        names = list(columns)
        frames = [frame_of(batch).unique() for batch in others.select(names).batches()]
        if not frames:
            return self if how == "anti" else replace(self.settled(), files=())
        keys = pl.concat(frames).unique()

        def joined(frame: pl.DataFrame) -> pl.DataFrame:
            return frame.join(keys.cast(frame.select(names).schema), on=names, how=how, nulls_equal=True)

        return self.chosen(names, joined)

    def chosen(self, columns: Sequence[str], choose: Choose, is_done: Callable[[], bool] = lambda: False) -> LocalRows:
        """Keep the rows that a function chooses, file by file; it reads these columns, and those of the predicate.

        Args:
            columns: That it looks at.
            choose: Returns some of a file's rows.
            is_done: Whether no further file can have such rows.
        """
        rows, kept = self.settled(), []
        for file, frame in zip(rows.files, rows._frames(columns), strict=True):
            places = choose(frame)[POSITION].to_numpy()
            if len(places):
                kept.append(replace(file, dropped=_all_but(places, file)))
            if is_done():
                break
        return replace(rows, files=tuple(kept), predicate=None)

    def numbered(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows that count with some columns and ``POSITION``, each batch with its file's number."""
        scan = self.scan(columns, batch_rows=1024, positions=True)
        for number, file in enumerate(self.files):
            for batch in read_piece(Piece((Part(file),)), scan):
                yield number, batch

    def at(self, places: Mapping[int, Any]) -> LocalRows:
        """Keep the rows at these places, by their file's number."""
        files = [
            replace(self.files[number], dropped=_all_but(kept, self.files[number])) for number, kept in places.items()
        ]
        return replace(self, files=tuple(files), predicate=None)

    def _frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield for each file its rows that count, with some columns and ``POSITION``."""
        scan = self.scan(columns, positions=True)
        for file in self.files:
            batches = list(read_piece(Piece((Part(file),)), scan))
            empty = pa.schema([*(_field_at(self.file_schema, scan.path(name)).with_name(name) for name in columns)])
            schema = empty.append(pa.field(POSITION, pa.int64()))
            yield frame_of(pa.Table.from_batches([b.cast(schema) for b in batches], schema))

    def map(self, function: PieceFunction, schema: pa.Schema) -> LocalRows:
        """Give what a function makes of the rows' record batches."""
        return replace(self.settled(), function=function, made_schema=schema)

    def map_groups(self, by: Sequence[str], function: Callable[[Any], Any], columns: pa.Schema | str) -> LocalRows:
        """Give what a function makes of each group's ``pandas.DataFrame``; see ``Rows.map_groups``."""
        if isinstance(columns, str):
            columns = declared_columns(columns)
        return self.dealt(by).map(partial(call_groups, function, columns, tuple(by)), columns)

    def dealt(self, by: Sequence[str]) -> LocalRows:
        """Return the same rows in files of which each has whole groups, as pieces.

        Args:
            by: Columns whose values make a group.
        """
        parts = max(
            PIECES_PER_WORKER * self.room.workers.count, sum(file.size for file in self.files) // DEALT_FILE_BYTES
        )
        schema = _nullable(self.schema)
        with ExitStack() as stack:
            files = [FileWriter(str(self.room.scratch), schema, DEALT_WAITING_BYTES) for _ in range(parts)]
            writers = [stack.enter_context(file) for file in files]
            for batch in self.batches():
                keys = frame_of(batch.select(list(by)))
                numbers = keys.hash_rows(seed=0) % parts
                for number in numbers.unique():
                    writers[number].write(batch.filter((numbers == number).to_arrow()))
        found = of_files(self.room, [file.written for file in files if file.written is not None], schema)
        return replace(found, pieces=tuple(Piece((Part(file),)) for file in found.files))

    def settled(self) -> LocalRows:
        """Return the rows as files; what a function makes is made now."""
        if self.function is None:
            return self
        made = list(self.make(str(self.room.scratch)))
        return of_files(self.room, [piece.file for piece in made if piece.file is not None], self.schema)

    def make(
        self, folder: str, *, batch_rows: int = 1024, least_rows: int = 1, on_rows: Tell | None = None
    ) -> Iterator[MadePiece]:
        """Read the rows in workers, make what is to be made of them, and write it into files.

        Args:
            folder: Where to.
            batch_rows: Rows read at a time.
            least_rows: Rows of a piece at least.
            on_rows: Told of rows done.
        """
        scan = self.scan(batch_rows=batch_rows)
        count = self.room.workers.count
        pieces = self.pieces or cut(self.files, scan.file_columns, workers=count, least_rows=least_rows)
        work = PieceWork(scan, self.function, self.schema, folder)
        return make_pieces(work, pieces, self.room.workers, on_rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, here, one batch in memory at a time."""
        rows = self.settled()
        for file in rows.files:
            yield from read_piece(Piece((Part(file),)), rows.scan())

    def is_empty(self) -> bool:
        """Run, and return whether there is no row."""
        return not any(batch.num_rows for batch in replace(self.settled(), columns=()).batches())

    def count(self) -> int:
        """Run, and return how many rows there are."""
        rows = self.settled()
        if rows.predicate is None:
            return sum(_rows_of(file) for file in rows.files)
        return sum(batch.num_rows for batch in replace(rows, columns=()).batches())

    def known_count(self) -> int | None:
        """Return how many rows there are before anything is made of them; None if that takes a look at them."""
        return None if self.predicate is not None else sum(_rows_of(file) for file in self.files)

    def tally(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Run, and return how many rows each combination of values has."""
        names = list(columns)
        parts = [frame_of(batch).group_by(names).len("rows") for batch in self.select(names).batches()]
        if not parts:
            return []
        import polars as pl

        return pl.concat(parts).group_by(names).agg(pl.col("rows").sum()).sort("rows", descending=True).to_dicts()

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Run, and return how many rows have a key that does not tell them apart."""
        places = [f"c{place}" for place in range(len(key))]  # a name with a dot would be the field of a struct
        keys = self.select(key).to_arrow().rename_columns(places)
        whole = keys.drop_null()
        counts = whole.group_by(places).aggregate([([], "count_all")])["count_all"].to_pylist()
        return KeyFaults(keys.num_rows, keys.num_rows - whole.num_rows, sum(count for count in counts if count > 1))

    def to_arrow(self) -> pa.Table:
        """Run, and bring the rows here."""
        rows = self.settled()
        return pa.Table.from_batches(list(rows.batches()), _nullable(rows.schema))


def of_files(room: Room, files: Sequence[WrittenFile], schema: pa.Schema) -> LocalRows:
    """Return the rows of written files."""
    return LocalRows(room, tuple(DataFile(f.path, f.size, f.rows, f.modified_ms) for f in files), schema)


def given(room: Room, table: pa.Table, pieces: Sequence[int] | None = None) -> LocalRows:
    """Return rows that are held here.

    Args:
        room: What they need of their engine.
        table: The rows.
        pieces: For each row, the piece of work that it belongs to.
    """
    numbers = pa.array(pieces if pieces is not None else [0] * table.num_rows, pa.int32())
    files = []
    for number in sorted(set(numbers.to_pylist())):
        with FileWriter(str(room.scratch), table.schema) as writer:
            for batch in table.filter(pc.equal(numbers, number)).to_batches():
                writer.write(batch)
        files += [writer.written] if writer.written is not None else []
    rows = of_files(room, files, table.schema)
    return rows if pieces is None else replace(rows, pieces=tuple(Piece((Part(file),)) for file in rows.files))


def _field_at(schema: pa.Schema, path: Sequence[str]) -> pa.Field:
    found = schema.field(path[0])
    for name in path[1:]:
        found = found.type.field(name)
    return found


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([column.with_nullable(True) for column in schema])


def _physical_rows(file: DataFile) -> int:
    return file.rows if file.rows is not None else parquet_rows(file.path)


def _rows_of(file: DataFile) -> int:
    rows = _physical_rows(file)
    dropped = file.dropped_rows(rows)
    return rows if dropped is None else rows - int(dropped.sum())


def _all_but(places: Any, file: DataFile) -> bytes | None:
    """Return the bits of a file's rows that do not count."""
    dropped = np.ones(_physical_rows(file), dtype=bool)
    dropped[places] = False
    return np.packbits(dropped).tobytes() if dropped.any() else None
