"""Tables at a version, their files in pieces, and the rows in them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.engines.local.pieces import Piece, cut
from lakemill.engines.local.predicates import Predicate
from lakemill.engines.local.reading import Scan, read_piece
from lakemill.engines.local.tables import Snapshot, open_table
from lakemill_udfs.errors import RunError, SetupError, TableError
from tests.local.delta_tables import write_by_hand


def opened(location: Path | str, version: int | str | None = None) -> Snapshot:
    snapshot = open_table(str(location), version)
    assert snapshot is not None
    return snapshot


def rows_of(
    snapshot: Snapshot, columns: Sequence[str] | None = None, where: str | None = None, workers: int = 2
) -> pa.Table:
    """Return all rows, read piece by piece as workers do."""
    predicate = None if where is None else Predicate.read(where, snapshot.schema)
    scan = Scan(snapshot.schema, tuple(columns or snapshot.schema.names), predicate, batch_rows=7)
    pieces = cut(snapshot.files(predicate), scan.file_columns, workers=workers)
    batches = [batch for piece in pieces for batch in read_piece(piece, scan)]
    return pa.Table.from_batches(batches) if batches else pa.table({})


def test_a_table_is_what_its_writer_said(tmp_path: Path) -> None:
    metadata = {"lakemill.dtype": "float32", "lakemill.shape": "[2, 2]", "lakemill.format": "1"}
    schema = pa.schema([("id", pa.int64()), pa.field("x", pa.binary(), metadata=metadata)])
    table = DeltaTable.create(str(tmp_path), schema, configuration={"delta.enableChangeDataFeed": "true"})
    snapshot = opened(tmp_path)
    assert (snapshot.version, snapshot.id) == (0, str(table.metadata().id))
    assert snapshot.properties["delta.enableChangeDataFeed"] == "true"
    assert snapshot.schema.equals(schema, check_metadata=True)


def test_no_table_is_none_and_an_unknown_version_is_said(tmp_path: Path) -> None:
    assert open_table(str(tmp_path / "none")) is None
    write_deltalake(str(tmp_path), pa.table({"id": [1]}))
    with pytest.raises(TableError, match="TABLE_VERSION"):
        open_table(str(tmp_path), 7)


def test_an_earlier_version_is_read_as_it_was(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"id": [1]}))
    write_deltalake(str(tmp_path), pa.table({"id": [2]}), mode="append")
    assert rows_of(opened(tmp_path, 0))["id"].to_pylist() == [1]
    assert sorted(rows_of(opened(tmp_path))["id"].to_pylist()) == [1, 2]


def test_partitions_with_odd_names(tmp_path: Path) -> None:
    days = [dt.date(2024, 1, 1), None, dt.date(2024, 1, 2), None]
    rows = pa.table({"id": range(4), "part": ["a b%/c", "é=", None, "x"], "day": pa.array(days, pa.date32())})
    write_deltalake(str(tmp_path / "a table"), rows, partition_by=["part", "day"])
    snapshot = opened(tmp_path / "a table")
    assert rows_of(snapshot).sort_by("id").to_pydict() == rows.to_pydict()
    assert rows_of(snapshot, ["id"], "part = 'a b%/c'")["id"].to_pylist() == [0]
    assert rows_of(snapshot, ["id"], "day IS NULL AND part IS NOT NULL")["id"].to_pylist().__len__() == 2
    assert len(snapshot.files(Predicate.read("day = '2024-01-02'", snapshot.schema))) == 1


def test_columns_that_came_later_are_null_in_older_files(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"id": [1], "out": [{"a": 1}]}))
    later = pa.table({"id": [2], "out": [{"a": 2, "b": "x"}], "new": [1.5]})
    write_deltalake(str(tmp_path), later, mode="append", schema_mode="merge")
    rows = rows_of(opened(tmp_path), ["id", "out.b", "new", "out"]).sort_by("id")
    assert rows["out.b"].to_pylist() == [None, "x"]
    assert rows["new"].to_pylist() == [None, 1.5]
    assert rows["out"].to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_a_struct_that_is_null_has_null_fields(tmp_path: Path) -> None:
    kind = pa.struct([("label", pa.string()), ("n", pa.int64())])
    write_deltalake(str(tmp_path), pa.table({"id": [1, 2], "out": pa.array([{"label": "x", "n": 1}, None], kind)}))
    assert rows_of(opened(tmp_path), ["out.label"], "out.n IS NULL")["out.label"].to_pylist() == [None]


@pytest.mark.parametrize("workers", [1, 3])
def test_deleted_rows_stay_away(tmp_path: Path, workers: int) -> None:
    location = write_by_hand(
        tmp_path / "a b",
        pa.table({"id": range(100)}),
        features=["deletionVectors"],
        deleted=[0, 13, 50, 99],
        group_rows=30,
    )
    expected = [number for number in range(100) if number not in {0, 13, 50, 99}]
    assert rows_of(opened(location), workers=workers)["id"].to_pylist() == expected
    assert rows_of(opened(location), where="id < 15", workers=workers)["id"].to_pylist() == expected[:13]


def mapped(name: str, kind: object, number: int, physical: str) -> dict[str, object]:
    metadata = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical}
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def test_renamed_columns_are_read_by_their_new_names(tmp_path: Path) -> None:
    """The file's 'id' is the table's 'old', and its 'col-1' the table's 'id'."""
    inner = {"type": "struct", "fields": [mapped("a", "long", 4, "col-a")]}
    fields = [mapped("old", "long", 1, "id"), mapped("id", "long", 2, "col-1"), mapped("out", inner, 3, "col-out")]
    rows = pa.table({"id": [1, 2], "col-1": [10, 20], "col-out": [{"col-a": 5}, {"col-a": 6}]})
    settings = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "4"}
    snapshot = opened(write_by_hand(tmp_path / "t", rows, fields, configuration=settings))
    read = rows_of(snapshot, ["id", "old", "out", "out.a"], "id = 20")
    assert read.to_pylist() == [{"id": 20, "old": 2, "out": {"a": 6}, "out.a": 6}]
    with pytest.raises(SetupError, match="ENGINE_LOCAL"):
        snapshot.check_writable()


WIDENED = (
    ("n", "long", pa.int32(), [1, 2], [2**40]),
    ("x", "double", pa.float32(), [1.5, 2.5], [0.1]),
    ("whole", "double", pa.int16(), [1, 2], [0.5]),
    ("day", "timestamp_ntz", pa.date32(), [dt.date(2020, 1, 1), None], [dt.datetime(2020, 1, 2, 3)]),
    ("price", "decimal(12,4)", pa.decimal128(6, 2), [Decimal("1.25"), None], [Decimal("3.1234")]),
    (
        "list",
        {"type": "array", "elementType": "long", "containsNull": True},
        pa.list_(pa.int32()),
        [[1], []],
        [[2**40]],
    ),
)
"""Name, type now, type in the older file, its values, those of the newer file."""


def test_columns_that_widened_are_read_as_they_are_now(tmp_path: Path) -> None:
    noted = {"delta.typeChanges": [{"fromType": "integer", "toType": "long"}]}
    fields = [{"name": name, "type": kind, "nullable": True, "metadata": noted} for name, kind, *_ in WIDENED]
    older = pa.table({name: pa.array(values, kind) for name, _, kind, values, _ in WIDENED})
    location = write_by_hand(tmp_path / "t", older, fields, ["typeWidening", "timestampNtz"])
    schema = opened(location).schema
    newer = pa.table({name: pa.array(values, schema.field(name).type) for name, *_, values in WIDENED})
    pq.write_table(newer, f"{location}/newer.parquet")
    file = {"path": "newer.parquet", "partitionValues": {}, "size": 1000, "modificationTime": 2, "dataChange": True}
    (Path(location) / "_delta_log" / f"{1:020d}.json").write_text(json.dumps({"add": file}))
    snapshot = opened(location)
    expected = {name: [*values, *new] for name, _, _, values, new in WIDENED}
    expected |= {"day": [dt.datetime(2020, 1, 1), None, dt.datetime(2020, 1, 2, 3)], "whole": [1.0, 2.0, 0.5]}
    assert rows_of(snapshot).to_pydict() == expected
    assert rows_of(snapshot, ["n"], "n > 2")["n"].to_pylist() == [2**40]
    with pytest.raises(SetupError, match="typeWidening"):
        snapshot.check_writable()


@pytest.mark.parametrize(
    ("features", "configuration"),
    [
        (["variantType"], {}),
        (["catalogManaged"], {}),
        (["columnMapping"], {"delta.columnMapping.mode": "id", "delta.columnMapping.maxColumnId": "1"}),
    ],
)
def test_what_would_be_read_wrong_is_refused(
    tmp_path: Path, features: list[str], configuration: dict[str, str]
) -> None:
    fields = [mapped("id", "long", 1, "id")]
    location = write_by_hand(tmp_path / "t", pa.table({"id": [1]}), fields, features, configuration)
    with pytest.raises(SetupError, match="ENGINE_LOCAL"):
        open_table(location)


@pytest.mark.parametrize("feature", ["rowTracking", "inCommitTimestamp", "checkConstraints", "identityColumns"])
def test_what_a_write_would_break_is_refused(tmp_path: Path, feature: str) -> None:
    location = write_by_hand(tmp_path / "t", pa.table({"id": [1]}), features=["deletionVectors"])
    log = Path(location) / "_delta_log" / f"{0:020d}.json"
    log.write_text(log.read_text().replace('"writerFeatures": [', f'"writerFeatures": ["{feature}", '))
    snapshot = opened(location)
    with pytest.raises(SetupError, match=feature):
        snapshot.check_writable()


def blobs(folder: Path, count: int = 10_000) -> Snapshot:
    write_deltalake(
        str(folder), pa.table({"id": range(count), "blob": [bytes([i % 251]) * 2000 for i in range(count)]})
    )
    return opened(folder)


def test_even_pieces_hold_each_row_once(tmp_path: Path) -> None:
    pieces = list(cut(blobs(tmp_path).files(), ["id", "blob"], workers=2, evenly=True))
    assert len(pieces) >= 8
    sizes = [sum(part.rows or 10_000 for part in piece.parts) for piece in pieces]
    assert max(sizes) <= 2 * min(sizes)
    assert sum(sizes) == 10_000


def test_pieces_become_smaller_so_that_no_worker_waits_long_for_the_last_one(tmp_path: Path) -> None:
    snapshot = blobs(tmp_path)
    sizes = [sum(part.rows or 10_000 for part in piece.parts) for piece in cut(snapshot.files(), ["blob"], workers=2)]
    assert sum(sizes) == 10_000
    assert sizes[0] == 2500
    assert sizes[-1] <= 10_000 / 20
    assert len(sizes) < 40
    assert rows_of(snapshot, ["id"])["id"].to_pylist() == list(range(10_000))


def test_two_workers_that_read_on_from_their_last_piece_read_each_row_once(tmp_path: Path) -> None:
    snapshot = blobs(tmp_path)
    scan = Scan(snapshot.schema, ("id",), batch_rows=301)
    pieces = list(cut(snapshot.files(), ["id", "blob"], workers=2))

    def read(own: Sequence[Piece]) -> list[int]:
        return [number for piece in own for batch in read_piece(piece, scan) for number in batch["id"].to_pylist()]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(read, (pieces[::2], pieces[1::2][::-1])))  # one of them goes back, too
    assert sorted(found[0] + found[1]) == list(range(10_000))


def test_small_rows_are_not_cut_below_a_models_batch(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"id": range(10_000)}))
    pieces = list(cut(opened(tmp_path).files(), ["id"], workers=2, least_rows=4096))
    assert len(pieces) == 2


def test_many_small_files_share_pieces(tmp_path: Path) -> None:
    for start in range(40):
        write_deltalake(str(tmp_path), pa.table({"id": [start]}), mode="append")
    snapshot = opened(tmp_path)
    assert len(list(cut(snapshot.files(), ["id"], workers=2, least_rows=32))) == 2
    assert sorted(rows_of(snapshot)["id"].to_pylist()) == list(range(40))


def test_old_times_of_spark_are_read(tmp_path: Path) -> None:
    at = [dt.datetime(1900, 1, 1, tzinfo=dt.UTC), dt.datetime(2500, 1, 1, 1, 2, 3, 456789, tzinfo=dt.UTC)]
    rows = pa.table({"at": pa.array(at, pa.timestamp("us", "UTC"))})
    location = write_by_hand(
        tmp_path / "t", rows, [{"name": "at", "type": "timestamp", "nullable": True, "metadata": {}}]
    )
    pq.write_table(rows, tmp_path / "t/file.parquet", use_deprecated_int96_timestamps=True)
    assert rows_of(opened(location))["at"].to_pylist() == at


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"id": [1]}))
    snapshot = opened(tmp_path)
    for path in tmp_path.glob("*.parquet"):
        path.write_bytes(b"damaged")
    with pytest.raises(RunError, match="STORAGE_READ"):
        rows_of(snapshot)
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    with pytest.raises(RunError, match="SOURCE_VERSIONS_GONE"):
        rows_of(snapshot)
