"""What is new in a table, and the positions in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.local.changes import Changes, NewFiles
from lakemill.engines.local.pieces import cut
from lakemill.engines.local.reading import Scan, read_piece
from lakemill.engines.local.tables import open_table
from lakemill.engines.positions import Position
from lakemill_udfs.errors import RunError

EVERYTHING = 2**40


def write(table: Path, ids: Sequence[int], **options: Any) -> None:
    rows = pa.table({"id": pa.array(ids, pa.int64()), "part": [f"p{number % 2}" for number in ids]})
    write_deltalake(str(table), rows, mode="append", **options)


def history(table: Path, *, whole: bool = False) -> Changes:
    snapshot = open_table(str(table))
    assert snapshot is not None
    return Changes(snapshot, whole)


def read(changes: Changes, new: NewFiles) -> list[dict[str, Any]]:
    scan = Scan(changes.schema, tuple(changes.schema.names))
    pieces = cut(new.files, scan.file_columns, workers=1)
    return [row for piece in pieces for batch in read_piece(piece, scan) for row in batch.to_pylist()]


def ids(changes: Changes, new: NewFiles) -> list[int]:
    return sorted(row["id"] for row in read(changes, new))


def test_the_first_piece_is_the_table_then_come_its_commits(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    write(tmp_path, [3])
    changes = history(tmp_path)
    (first,) = changes.after(None, EVERYTHING)
    assert (ids(changes, first), first.end, first.version, first.is_snapshot) == ([1, 2, 3], Position(2), 1, True)
    assert list(changes.after(first.end, EVERYTHING)) == []
    write(tmp_path, [4])
    write(tmp_path, [5])
    changes = history(tmp_path)
    (more,) = changes.after(first.end, EVERYTHING)
    assert (ids(changes, more), more.end, more.version, more.is_snapshot) == ([4, 5], Position(4), 3, False)


def test_pieces_hold_at_least_a_file_and_each_is_found_again(tmp_path: Path) -> None:
    write(tmp_path, [1])
    write(tmp_path, [2, 3], partition_by=None)
    changes = history(tmp_path)
    snapshot = list(changes.after(None, 1))
    assert [ids(changes, piece) for piece in snapshot] == [[1], [2, 3]]
    assert [piece.end for piece in snapshot] == [Position(1, 0, is_snapshot=True), Position(2)]
    write(tmp_path, [4])
    changes = history(tmp_path)
    assert changes.between(None, snapshot[0].end).files == snapshot[0].files
    assert changes.between(snapshot[0].end, snapshot[1].end).files == snapshot[1].files
    again = list(changes.after(snapshot[0].end, 1))
    assert [ids(changes, piece) for piece in again] == [[2, 3], [4]]


def test_files_of_one_commit_can_be_apart(tmp_path: Path) -> None:
    write(tmp_path, [0], partition_by=["part"])
    write(tmp_path, range(1, 5), partition_by=["part"])
    changes = history(tmp_path)
    pieces = list(changes.after(Position(1), 1))
    assert [piece.end for piece in pieces] == [Position(1, 0), Position(2)]
    assert sorted(ids(changes, pieces[0]) + ids(changes, pieces[1])) == [1, 2, 3, 4]
    assert {row["part"] for row in read(changes, pieces[0])} < {"p0", "p1"}
    assert changes.between(Position(1, 0), Position(2)).files == pieces[1].files
    assert next(changes.after(Position(1, 0), 1)).files == pieces[1].files


def test_rearranging_is_no_news(tmp_path: Path) -> None:
    write(tmp_path, [1])
    write(tmp_path, [2])
    DeltaTable(str(tmp_path)).optimize.compact()
    for whole in (False, True):
        assert list(history(tmp_path, whole=whole).after(Position(2), EVERYTHING)) == []
    write(tmp_path, [3])
    changes = history(tmp_path)
    (piece,) = changes.after(Position(2), EVERYTHING)
    assert (ids(changes, piece), piece.end) == ([3], Position(4))


@pytest.mark.parametrize("how", ["delete", "update", "overwrite"])
def test_what_is_not_adding_is_said(tmp_path: Path, how: str) -> None:
    write(tmp_path, [1, 2])
    if how == "delete":
        DeltaTable(str(tmp_path)).delete("id = 1")
    elif how == "update":
        DeltaTable(str(tmp_path)).update({"part": "'x'"}, predicate="id = 1")
    else:
        write_deltalake(str(tmp_path), pa.table({"id": [9], "part": ["p"]}), mode="overwrite")
    with pytest.raises(RunError, match="SOURCE_CHANGED"):
        list(history(tmp_path).after(Position(1), EVERYTHING))


def test_versions_that_are_gone_are_said(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, [number])
    DeltaTable(str(tmp_path)).create_checkpoint()
    (tmp_path / "_delta_log" / f"{1:020d}.json").unlink()
    with pytest.raises(RunError, match="SOURCE_VERSIONS_GONE"):
        list(history(tmp_path).after(Position(1), EVERYTHING))


@pytest.mark.parametrize("feed", ["true", "false"])
def test_changes_come_whole(tmp_path: Path, feed: str) -> None:
    """Without a feed a rewritten file is a delete and an insert of its rows, which comes to the same."""
    configuration = {"delta.enableChangeDataFeed": feed}
    write(tmp_path, [1, 2, 3], configuration=configuration)
    table = DeltaTable(str(tmp_path))
    table.update({"part": "'new'"}, predicate="id = 1")
    table.delete("id = 2")
    write(tmp_path, [4])
    changes = history(tmp_path, whole=True)
    first, rest = next(changes.after(None, 1)), [*changes.after(Position(1), 1)]
    assert {row["_change_type"] for row in read(changes, first)} == {"insert"}
    assert [piece.end for piece in rest] == [Position(2), Position(3), Position(4)]
    state: dict[int, str | None] = {1: "p1", 2: "p0", 3: "p1"}
    for piece in rest:
        rows = sorted(read(changes, piece), key=lambda row: row["_change_type"] in {"insert", "update_postimage"})
        assert {row["_commit_version"] for row in rows} == {piece.version}
        for row in rows:
            state[row["id"]] = row["part"] if row["_change_type"] in {"insert", "update_postimage"} else None
    assert state == {1: "new", 2: None, 3: "p1", 4: "p0"}
    (at_once,) = changes.after(Position(1), EVERYTHING)
    assert at_once.version == 3


def test_progress_is_written_as_structured_streaming_does(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    checkpoint.start("11111111-2222-3333-4444-555555555555")
    assert (checkpoint.query_id(), checkpoint.begun()) == ("11111111-2222-3333-4444-555555555555", None)
    ends = [Position(1, 0, is_snapshot=True), Position(2), Position(7, 3)]
    for batch_id, end in enumerate(ends):
        checkpoint.begin(batch_id, end, "table-id")
        assert (checkpoint.begun(), checkpoint.last_batch()) == (batch_id, batch_id - 1 if batch_id else None)
        checkpoint.finish(batch_id)
    assert [checkpoint.position(batch_id) for batch_id in range(4)] == [*ends, None]
    assert checkpoint.offset(1).version == 1
    assert checkpoint.offset(1).is_snapshot
    version, head, end = (tmp_path / "checkpoint/offsets/1").read_text().split("\n")
    assert (version, json.loads(head)["conf"]) == ("v1", {"spark.sql.shuffle.partitions": "16"})
    assert json.loads(end) == {
        "sourceVersion": 1,
        "reservoirId": "table-id",
        "reservoirVersion": 2,
        "index": -1,
        "isStartingVersion": False,
    }
    names = {path.name for path in (tmp_path / "checkpoint").rglob("*") if path.is_file()}
    assert names == {"metadata", "0", "1", "2"}
