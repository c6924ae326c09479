"""A job writes, replaces and deletes only what is its own, whatever its tables hold and whatever they are called."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema

from lakemill import LakemillError
from lakemill.cli.app import run
from tests.both.on import On
from tests.lake import OWN_FUNCTIONS, add_rows, numbers_job

KEPT = {"id": [1], "note": ["kept"]}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield a folder with a table of 4 numbers that records its changes."""
    monkeypatch.syspath_prepend(str(OWN_FUNCTIONS))
    add_rows(tmp_path / "numbers", numbers(0, 4))
    return tmp_path


def numbers(start: int, end: int) -> dict[str, Any]:
    return {"id": list(range(start, end)), "x": [float(number) for number in range(start, end)]}


def rows_of(lake: Path, table: str = "predictions") -> list[dict[str, Any]]:
    """Read a table with the independent reader."""
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/{table}").to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str((row.get("id"), row.get("metadata", {}).get("job"))))


def of_job(lake: Path, name: str, table: str = "predictions") -> list[dict[str, Any]]:
    return [row for row in rows_of(lake, table) if row["metadata"]["job"] == name]


def version(lake: Path, table: str = "predictions") -> int:
    return DeltaTable(f"{lake}/{table}").version()


@pytest.mark.parametrize("mode", ["full", "incremental", "missing"])
def test_a_table_of_something_else_is_left_alone(lake: Path, on: On, mode: str) -> None:
    add_rows(lake / "other", KEPT)
    for key in ("output__table", "quarantine__table"):
        with pytest.raises(LakemillError, match=r"^\[OUTPUT_NOT_OURS\] .* has id, note") as caught:
            on.predict(numbers_job(lake, mode=mode, **{key: f"{lake}/other"}))
        assert "full" not in str(caught.value)
        assert "replace" not in str(caught.value)
    assert (version(lake, "other"), len(rows_of(lake, "other"))) == (0, 1)


def test_only_when_told_so_a_table_of_something_else_is_replaced(lake: Path, on: On) -> None:
    add_rows(lake / "other", KEPT)
    config = numbers_job(lake, mode="full", output__table=f"{lake}/other")
    with pytest.raises(LakemillError, match=r"^\[REPLACE_MODE\]"):
        on.predict(numbers_job(lake, output__table=f"{lake}/other"), replace_table=True)
    assert on.predict(config, replace_table=True).rows == 4
    assert [row["out"]["y"] for row in rows_of(lake, "other")] == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
        on.predict(numbers_job(lake, mode="full", output__table=f"{lake}/numbers"), replace_table=True)


@pytest.mark.seam
def test_full_replaces_its_own_rows_in_one_commit_and_keeps_the_layout(lake: Path, on: On) -> None:
    text = pa.string()
    columns = {
        "id": pa.int64(),
        "label": text,
        "reviewed": pa.bool_(),
        "out": pa.struct({"y": pa.float64()}),
        "error": pa.struct({"stage": text, "code": text, "message": text}),
        "metadata": pa.struct({"job": text, "run_id": text}),
    }
    DeltaTable.create(
        lake / "predictions",
        Schema.from_arrow(pa.schema(columns)),
        partition_by=["label"],
        configuration={"lake.owner": "me"},
        raise_if_key_not_exists=False,
    )
    one, two = numbers_job(lake, name="one"), numbers_job(lake, name="two")
    on.predict(one)
    on.predict(two)
    others, before = of_job(lake, "one"), version(lake)
    DeltaTable(lake / "numbers").delete("id = 3")
    again = on.predict(numbers_job(lake, name="two", mode="full"))
    assert (again.rows, version(lake)) == (3, before + 1)
    assert of_job(lake, "one") == others
    assert [row["id"] for row in of_job(lake, "two")] == [0, 1, 2]
    kept = DeltaTable(lake / "predictions").metadata()
    assert (kept.partition_columns, kept.configuration["lake.owner"]) == (["label"], "me")
    assert "reviewed" in rows_of(lake)[0]
    # Where nothing is left to score, nothing of the job's is left; the other job goes on.
    assert on.predict(numbers_job(lake, "source.where=id > 10", name="two", mode="full")).rows == 0
    assert (of_job(lake, "one"), of_job(lake, "two")) == (others, [])


def test_jobs_of_one_output_have_fields_of_their_own(lake: Path, on: On) -> None:
    on.predict(numbers_job(lake, name="one"))
    on.predict(numbers_job(lake, "source.columns=[x]", name="two", function="twice_and_thrice"))
    add_rows(lake / "numbers", numbers(4, 5))
    assert on.predict(numbers_job(lake, name="one")).rows == 1
    assert on.predict(numbers_job(lake, name="one", mode="missing")).rows == 0
    assert on.predict(numbers_job(lake, name="one", mode="full")).rows == 5
    assert on.predict(numbers_job(lake, name="one", mode="where", source__where="id < 2")).rows == 2
    assert [(row["out"], row["x"]) for row in of_job(lake, "one")] == [
        ({"y": 2.0 * x, "z": None}, None) for x in range(5)
    ]
    assert [(row["out"]["z"], row["x"]) for row in of_job(lake, "two")] == [(3.0 * x, x) for x in range(4)]


def test_an_output_that_a_new_pipeline_lacks_is_null_in_the_rows_it_replaces(lake: Path, on: On) -> None:
    on.predict(numbers_job(lake, "output.dataset=['*']", function="twice_and_thrice"))
    assert on.predict(numbers_job(lake, mode="missing")).rows == 4
    assert [(row["out"], row["in"]) for row in rows_of(lake)] == [({"y": 2.0 * x, "z": None}, None) for x in range(4)]


def test_a_column_that_somebody_added_stays(lake: Path, on: On) -> None:
    on.predict(numbers_job(lake))
    DeltaTable(lake / "predictions").alter.add_columns([Field("reviewed", "boolean")])
    DeltaTable(lake / "predictions").update({"reviewed": "true"})
    add_rows(lake / "numbers", numbers(4, 5))
    assert on.predict(numbers_job(lake)).rows == 1
    assert on.predict(numbers_job(lake, function="twice_and_thrice", mode="missing")).rows == 5
    assert [row["reviewed"] for row in rows_of(lake)] == [True] * 4 + [None]


def test_an_outputs_column_of_another_type_is_refused(lake: Path, on: On) -> None:
    on.predict(numbers_job(lake))
    add_rows(lake / "texts", {"id": ["a"], "x": [1.0]})
    config = numbers_job(lake, source__table=f"{lake}/texts", name="texts", mode="full")
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_SCHEMA\] .*id is bigint there, expected string"):
        on.predict(config)


def test_a_quarantine_table_gains_fields_and_is_shared(lake: Path, on: On) -> None:
    quarantine = {"quarantine__table": f"{lake}/bad"}
    on.predict(numbers_job(lake, name="one", function="even", **quarantine))
    on.predict(numbers_job(lake, name="two", function="even_and_thrice", output__table=f"{lake}/more", **quarantine))
    add_rows(lake / "numbers", numbers(4, 8))
    assert on.predict(numbers_job(lake, name="one", function="even_and_thrice", **quarantine)).rows == 4
    found = [(row["metadata"]["job"], row["id"]) for row in rows_of(lake, "bad")]
    assert sorted(found) == [("one", 1), ("one", 3), ("one", 5), ("one", 7), ("two", 1), ("two", 3)]
    assert on.reset(numbers_job(lake, name="one", **quarantine)) == 8
    assert [row["metadata"]["job"] for row in rows_of(lake, "bad")] == ["two", "two"]


@pytest.mark.parametrize(
    ("ids", "code", "count"),
    [
        ([1, 1, 2], "KEY_NOT_UNIQUE", "2 of 3 rows"),
        ([None, None, 2], "KEY_NULL", "2 of 3 rows"),
    ],
)
def test_keys_that_do_not_tell_rows_apart_are_found_before_the_commit(
    lake: Path, on: On, ids: list[int | None], code: str, count: str
) -> None:
    add_rows(lake / "doubtful", {"id": ids, "x": [1.0, 2.0, 3.0]})
    for mode in ({"source__changes": "upsert"}, {"mode": "missing"}, {"mode": "where", "source__where": "id > 0"}):
        config = numbers_job(lake, source__table=f"{lake}/doubtful", **mode)
        if code == "KEY_NULL" and "source__where" in mode:
            continue  # it leaves them out
        with pytest.raises(LakemillError, match=rf"^\[{code}\] {count}"):
            on.predict(config)
    assert rows_of(lake) == []
    appended = numbers_job(lake, source__table=f"{lake}/doubtful", output__table=f"{lake}/appended")
    assert on.predict(appended).rows == 3  # append needs no key


def test_equal_contents_are_scored_once_whatever_the_columns_are_called(lake: Path, on: On) -> None:
    def rows(start: int, end: int) -> dict[str, Any]:
        ids = list(range(start, end))
        named = {name: [letter] * len(ids) for name, letter in (("_digest", "p"), ("_first", "q"), ("_group", "r"))}
        return {"id": ids, "a.b": ids, **named, "x": [str(number % 2) for number in ids]}

    add_rows(lake / "texts", rows(0, 4))
    config = numbers_job(
        lake,
        function="length",
        source__table=f"{lake}/texts",
        source__key=["id", "a.b"],
        source__columns=["_digest", "_first", "_group"],
        deduplicate="content",
    )
    assert on.predict(config).rows == 4
    add_rows(lake / "texts", rows(4, 6))
    assert on.predict(config).rows == 2
    found = [(row["a.b"], row["_digest"], row["_first"], row["_group"], row["out"]["y"]) for row in rows_of(lake)]
    assert found == [(number, "p", "q", "r", 1.0) for number in range(6)]


def test_replacing_a_table_is_asked_for(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    told = ["--source", f"{lake}/numbers", "--model", "model.onnx", "--output", f"{lake}/other", "--mode", "full"]
    assert run(["predict", *told, "--replace-table"]) == 1
    assert not (lake / "other_checkpoint").exists()


def test_run_tables_of_something_else_get_no_rows(lake: Path, on: On, caplog: pytest.LogCaptureFixture) -> None:
    add_rows(lake / "predictions_runs", KEPT)
    assert on.predict(numbers_job(lake)).rows == 4
    assert "TABLE_SCHEMA" in caplog.text
    assert version(lake, "predictions_runs") == 0
