"""Rows: chosen, counted, and made into others, read no more than needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from lakemill.engines.local.pool import Workers
from lakemill.engines.local.rows import LocalRows, Room, given
from lakemill.engines.local.tables import open_table

SCHEMA = pa.schema([("id", pa.int64()), ("label", pa.string()), ("metadata", pa.struct([("job", pa.string())]))])


def table_rows(ids: Iterable[int | None], label: str) -> pa.Table:
    ids = list(ids)
    return pa.table({"id": ids, "label": [label] * len(ids), "metadata": [{"job": label * 2}] * len(ids)}, SCHEMA)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(Workers("threads", 2, 1), tmp_path / "scratch")


@pytest.fixture
def rows(room: Room, tmp_path: Path) -> LocalRows:
    write_deltalake(str(tmp_path / "t"), table_rows(range(5), "a"))
    write_deltalake(str(tmp_path / "t"), table_rows([5, 6, None], "b"), mode="append")
    snapshot = open_table(str(tmp_path / "t"))
    assert snapshot is not None
    return LocalRows(room, tuple(snapshot.files()), snapshot.schema)


def ids(rows: LocalRows) -> list[int | None]:
    return list(rows.select(["id"]).to_arrow()["id"].to_pylist())


def double(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pc.multiply(batch["id"], 2)], ["twice"])


def test_rows_are_read_counted_and_selected(rows: LocalRows) -> None:
    assert rows.schema == SCHEMA
    assert (rows.count(), rows.is_empty()) == (8, False)
    some = rows.where("label = 'a'").where("id > 1")
    assert (ids(some), some.count(), some.is_empty()) == ([2, 3, 4], 3, False)
    nothing = rows.where("label = 'c'")
    assert (nothing.count(), nothing.is_empty(), nothing.to_arrow().num_rows) == (0, True, 0)
    chosen = rows.select(["metadata.job", "id"]).to_arrow()
    assert chosen.column_names == ["metadata.job", "id"]
    assert chosen["metadata.job"].to_pylist() == ["aa"] * 5 + ["bb"] * 3


def test_rows_by_the_keys_of_others(rows: LocalRows, room: Room) -> None:
    others = given(room, pa.table({"id": pa.array([1, 5, None, 99], pa.int32())}))
    assert ids(rows.only(others, ["id"])) == [1, 5, None]
    assert ids(rows.without(others, ["id"])) == [0, 2, 3, 4, 6]
    assert ids(rows.where("id < 5").without(others, ["id"])) == [0, 2, 3, 4]
    assert ids(rows.without(others, ["id"]).where("label = 'b'")) == [6]
    assert rows.without(others, ["id"]).count() == 5
    assert rows.without(rows, ["id", "label"]).is_empty()
    nobody = others.where("id > 1000")
    assert rows.without(nobody, ["id"]).count() == 8
    assert rows.only(nobody, ["id"]).is_empty()


def test_some_rows(rows: LocalRows) -> None:
    assert ids(rows.limit(6)) == [0, 1, 2, 3, 4, 5]
    assert ids(rows.where("id > 3").limit(2)) == [4, 5]
    assert ids(rows.newest(3, "id", ["label"])) == [6, 5, 4]
    assert ids(rows.where("id < 3").newest(2, "metadata.job", ["id"])) in ([0, 1], [0, 2], [1, 2])


def test_tally(rows: LocalRows) -> None:
    assert rows.tally(["metadata.job"]) == [{"metadata.job": "aa", "rows": 5}, {"metadata.job": "bb", "rows": 3}]
    assert rows.where("id > 100").tally(["label"]) == []


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_what_is_made_of_rows(rows: LocalRows, room: Room, kind: str, tmp_path: Path) -> None:
    elsewhere = Room(Workers("processes" if kind == "processes" else "threads", 2, 1), room.scratch)
    made = LocalRows(elsewhere, rows.files, SCHEMA, predicate="id > 3").map(double, pa.schema([("twice", pa.int64())]))
    assert sorted(made.to_arrow()["twice"].to_pylist()) == [8, 10, 12]
    assert sorted(made.where("twice > 9").to_arrow()["twice"].to_pylist()) == [10, 12]
    assert made.count() == 3


def test_given_pieces_are_worked_on_apart(room: Room) -> None:
    rows = given(room, pa.table({"id": [1, 2, 3]}), [0, 1, 0])
    made = list(rows.map(double, pa.schema([("twice", pa.int64())])).make(str(room.scratch)))
    assert sorted(piece.rows for piece in made if piece.rows) == [1, 2]


def double_few(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in double(batches):
        yield batch
        if batch.num_rows > 2:
            raise MemoryError


def test_pieces_of_threads_share_a_file_without_the_rows_of_attempts_that_failed(room: Room) -> None:
    rows = given(room, pa.table({"id": range(40)}), [number // 10 for number in range(40)])
    made = rows.map(double_few, pa.schema([("twice", pa.int64())])).make(str(room.scratch), batch_rows=8)
    files = [piece.file for piece in made if piece.file is not None]
    assert [file.rows for file in files] == [40]
    assert sorted(pq.read_table(files[0].path)["twice"].to_pylist()) == list(range(0, 80, 2))


def test_a_piece_for_which_memory_was_short_is_done_again_and_costs_the_others_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that fills the file encodes what others gave, too: theirs are done and told, and must not go."""
    rows = given(room, pa.table({"id": range(60)}), [number // 8 for number in range(60)])
    monkeypatch.setattr("lakemill.engines.local.gathering.GROUP_ROWS", 20)
    refused: list[int] = []
    write_table = pq.ParquetWriter.write_table

    def short_once(self: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
        if not refused:
            refused.append(table.num_rows)
            raise pa.ArrowMemoryError("malloc of size 64 failed")
        write_table(self, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", short_once)
    made = rows.map(double, pa.schema([("twice", pa.int64())])).make(str(room.scratch), batch_rows=8)
    found = pa.concat_tables(pq.read_table(piece.file.path) for piece in made if piece.file is not None)
    assert refused, "the fault must happen"
    assert sorted(found["twice"].to_pylist()) == list(range(0, 120, 2))
