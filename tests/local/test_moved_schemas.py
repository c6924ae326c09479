"""Schemas move: what a job does not use changes nothing, what it uses is named, what a user added stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.schema import PrimitiveType

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.predict.redo import retry_errors
from tests.local.delta_tables import write_by_hand

FEED = {"delta.enableChangeDataFeed": "true"}


def write(lake: Path, start: int, count: int, *, mode: Any = "append", **columns: Any) -> None:
    numbers = range(start, start + count)
    rows = {"id": list(numbers), "x": [float(number) for number in numbers]}
    rows |= {name: [value] * count for name, value in columns.items()}
    how: Any = "merge" if mode == "append" else "overwrite"
    write_deltalake(lake / "source", pa.table(rows), mode=mode, schema_mode=how, configuration=FEED)


def job(lake: Path, **values: Any) -> PredictConfig:
    step = {"function": "tests.local.job_functions:twice", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    usual = {
        "name": "moved",
        "source__table": f"{lake}/source",
        "source__key": ["id"],
        "pipeline__steps": [{"python": step}],
        "output__table": f"{lake}/predictions",
        "engine": {"name": "local"},
    }
    return PredictConfig.load(**usual | values)


def predictions(lake: Path) -> dict[int, dict[str, Any]]:
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize("changes", ["append", "upsert"])
def test_columns_of_the_source_that_a_job_does_not_use_change_nothing(tmp_path: Path, changes: str) -> None:
    config = job(tmp_path, source__changes=changes)
    write(tmp_path, 0, 3)
    assert predict_table(config).rows == 3
    write(tmp_path, 3, 2, late="here")
    assert predict_table(config).rows == 2
    write(tmp_path, 5, 2)
    assert predict_table(config).rows == 2
    DeltaTable(tmp_path / "source").alter.add_columns(Field("later", PrimitiveType("string")))
    assert predict_table(config).rows == 0
    write(tmp_path, 7, 1)
    assert predict_table(config).rows == 1
    assert {number: row["out"]["y"] for number, row in predictions(tmp_path).items()} == {n: 2.0 * n for n in range(8)}
    if changes == "upsert":
        write(tmp_path, 0, 4, mode="overwrite")  # without the columns that came
        assert predict_table(config).rows == 4
        assert sorted(predictions(tmp_path)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("gone", "code"), [("c", "COLUMN_MISSING"), ("x", "MODEL_INPUT_MISSING")])
def test_a_column_that_a_job_uses_and_that_is_gone_is_named(tmp_path: Path, gone: str, code: str) -> None:
    config = job(tmp_path, source__columns=["c"], source__changes="upsert")
    write(tmp_path, 0, 3, c=1)
    predict_table(config)
    rows = pa.table({"id": [0, 1], "x": [0.0, 1.0], "c": [1, 1]}).drop_columns([gone])
    write_deltalake(tmp_path / "source", rows, mode="overwrite", schema_mode="overwrite")
    with pytest.raises(LakemillError) as raised:
        predict_table(config)
    assert raised.value.code == code
    assert f"'{gone}'" in raised.value.message
    assert len(predictions(tmp_path)) == 3


@pytest.mark.parametrize("changes", ["append", "upsert"])
def test_a_column_that_a_user_added_to_the_predictions_stays(tmp_path: Path, changes: str) -> None:
    config = job(tmp_path, source__changes=changes)
    write(tmp_path, 0, 3)
    predict_table(config)
    output = DeltaTable(tmp_path / "predictions")
    output.alter.add_columns(Field("note", PrimitiveType("string")))
    DeltaTable(tmp_path / "predictions").update({"note": "'kept'"}, predicate="id < 2")
    if changes == "upsert":
        DeltaTable(tmp_path / "source").update({"x": "50.0"}, predicate="id = 1")
    write(tmp_path, 3, 2)
    assert predict_table(config).rows == 2 + (changes == "upsert")
    assert {number: row["note"] for number, row in predictions(tmp_path).items()} == {
        0: "kept",
        1: "kept",
        2: None,
        3: None,
        4: None,
    }
    assert retry_errors(config).rows == 0
    assert predict_table(job(tmp_path, source__changes=changes, mode="missing")).rows == 0
    assert predict_table(job(tmp_path, source__changes=changes, mode="full")).rows == 5
    assert "note" in DeltaTable(tmp_path / "predictions").schema().to_arrow().names


@pytest.mark.parametrize("changes", ["append", "upsert"])
def test_a_carried_column_that_widened_is_widened(tmp_path: Path, changes: str) -> None:
    narrow = pa.schema([("id", pa.int32()), ("x", pa.float64()), ("c", pa.int32()), ("f", pa.float32())])
    wide = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("c", pa.int64()), ("f", pa.float64())])
    first = pa.table({"id": [0, 1], "x": [0.0, 1.0], "c": [5, 5], "f": [0.5, 0.5]}).cast(narrow)
    write_deltalake(tmp_path / "source", first, configuration=FEED)
    write_deltalake(tmp_path / "small", first.slice(0, 1), configuration=FEED)
    config = job(tmp_path, source__columns=["c", "f"], source__changes=changes)
    other = job(tmp_path, name="other", source__table=f"{tmp_path}/small", source__columns=["c", "f"])
    predict_table(config)
    predict_table(other)
    large = pa.table({"id": [2**40, 0], "x": [2.0, 0.0], "c": [2**40, 6], "f": [0.1, 0.5]}, schema=wide)
    write_deltalake(tmp_path / "source", large, mode="overwrite", schema_mode="overwrite")
    widened = job(tmp_path, source__columns=["c", "f"], source__changes=changes, mode="full")
    predict_table(config if changes == "upsert" else widened)
    write_deltalake(tmp_path / "small", first.slice(1, 1), mode="append")
    predict_table(other)  # its own column is as narrow as it was
    table = DeltaTable(tmp_path / "predictions").to_pyarrow_table()
    assert [str(table.schema.field(name).type) for name in ("id", "c", "f")] == ["int64", "int64", "double"]
    assert table.schema.field("out").type.field("y").metadata[b"lakemill.dtype"] == b"float64"
    rows = {(row["metadata"]["job"], row["id"]): (row["c"], row["f"], row["out"]["y"]) for row in table.to_pylist()}
    assert rows == {
        ("moved", 2**40): (2**40, 0.1, 4.0),
        ("moved", 0): (6, 0.5, 0.0),
        ("other", 0): (5, 0.5, 0.0),
        ("other", 1): (5, 0.5, 2.0),
    }
    written = [pq.read_schema(uri.removeprefix("file://")) for uri in DeltaTable(tmp_path / "predictions").file_uris()]
    assert {str(schema.field("c").type) for schema in written} == {"int64"}


def test_a_source_that_maps_or_widened_its_columns_is_scored_into_a_plain_table(tmp_path: Path) -> None:
    def column(name: str, kind: str, number: int) -> dict[str, Any]:
        notes = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
        widened = {"delta.typeChanges": [{"fromType": "integer", "toType": "long"}]} if kind == "long" else {}
        return {"name": name, "type": kind, "nullable": True, "metadata": notes | widened}

    def found() -> dict[int, tuple[str, float]]:
        return {key: (row["the note"], row["out"]["y"]) for key, row in predictions(tmp_path).items()}

    rows = pa.table({"col-1": pa.array([1, 2], pa.int32()), "col-2": [1.0, 2.0], "col-3": ["a", "b"]})
    fields = [column("id", "long", 1), column("x", "double", 2), column("the note", "string", 3)]
    mapped = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "3"} | FEED
    write_by_hand(tmp_path / "source", rows, fields, ["columnMapping", "typeWidening"], mapped)
    usual = {"source__columns": ["the note"], "source__changes": "upsert"}
    assert predict_table(job(tmp_path, **usual)).rows == 2
    assert found() == {1: ("a", 2.0), 2: ("b", 4.0)}
    assert predict_table(job(tmp_path, **usual, mode="missing")).rows == 0
    newer = pa.table({"col-1": [2, 2**40], "col-2": [5.0, 7.0], "col-3": ["b", "c"]})
    pq.write_table(newer, tmp_path / "source/newer.parquet")
    file = {"partitionValues": {}, "size": 1000, "dataChange": True}
    actions = (
        {"remove": file | {"path": "file.parquet", "deletionTimestamp": 2, "extendedFileMetadata": True}},
        {"add": file | {"path": "newer.parquet", "modificationTime": 2, "stats": json.dumps({"numRecords": 2})}},
    )
    (tmp_path / f"source/_delta_log/{1:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    predict_table(job(tmp_path, **usual))
    assert found() == {2: ("b", 10.0), 2**40: ("c", 14.0)}
    schema = pa.schema(DeltaTable(tmp_path / "predictions").schema().to_arrow())
    assert schema.field("id").type == pa.int64()
    assert not any(name.startswith(b"delta.") for field in schema for name in field.metadata or {})
