"""Keys: any name works in every mode, values that cannot be compared are refused, repeats are found before a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.predict.redo import retry_errors, undo_run
from tests.local.test_moved_schemas import FEED, job


def write(lake: Path, key: str, values: list[Any], *, kind: pa.DataType | None = None, start: float = 0.0) -> None:
    numbers = [start + number for number in range(len(values))]
    rows = pa.table({key: pa.array(values, kind), "x": numbers, "changed": numbers})
    write_deltalake(lake / "source", rows, mode="append", configuration=FEED)


def config_of(lake: Path, key: str, **values: Any) -> PredictConfig:
    return job(lake, source__key=[key], source__columns=["changed"], **values)


def results(lake: Path, key: str) -> list[tuple[Any, float]]:
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    return sorted((row[key], row["out"]["y"]) for row in rows)


@pytest.mark.parametrize("key", ["a.id", "a b", "id`s", 'say "id"', "schlüssel", ".id"])
def test_a_key_of_any_name_works_in_every_mode(tmp_path: Path, key: str) -> None:
    write(tmp_path, key, ["p", "q", "r"])
    first = predict_table(config_of(tmp_path, key))
    assert first.rows == 3
    write(tmp_path, key, ["s"], start=3.0)
    assert predict_table(config_of(tmp_path, key, mode="missing")).rows == 1
    assert predict_table(config_of(tmp_path, key, mode="where", source__where="changed > 1")).rows == 2
    assert retry_errors(config_of(tmp_path, key)).rows == 0
    assert undo_run(config_of(tmp_path, key), first.run_id) == 2
    assert predict_table(config_of(tmp_path, key)).rows == 2
    assert predict_table(config_of(tmp_path, key, mode="full")).rows == 4
    assert results(tmp_path, key) == [("p", 0.0), ("q", 2.0), ("r", 4.0), ("s", 6.0)]
    followed = {"name": "followed", "output__table": f"{tmp_path}/followed", "source__changes": "upsert"}
    assert predict_table(config_of(tmp_path, key, **followed, source__change_column="changed")).rows == 4


@pytest.mark.parametrize("name", ["_deleted", "__there", "__left_over", "__position", "__file", "__row"])
@pytest.mark.parametrize("is_key", [True, False])
def test_names_of_the_engine_s_own_never_meet_a_user_s(tmp_path: Path, name: str, *, is_key: bool) -> None:
    def write_rows(numbers: list[int]) -> None:
        rows = pa.table({"id": numbers, "x": [float(number) for number in numbers], name: [f"v{n}" for n in numbers]})
        write_deltalake(tmp_path / "source", rows, mode="append", configuration=FEED)

    def config(**values: Any) -> PredictConfig:
        named = {"source__key": [name]} if is_key else {"source__columns": [name]}
        return job(tmp_path, source__changes="upsert", **named, **values)

    def carried() -> list[tuple[str, float]]:
        return results(tmp_path, name)

    write_rows([0, 1, 2])
    first = predict_table(config())
    write_rows([4])
    assert predict_table(config(mode="missing")).rows == 1
    DeltaTable(tmp_path / "source").update(updates={"x": "x + 10"}, predicate="id = 1")
    DeltaTable(tmp_path / "source").delete("id = 0")
    write_rows([3])
    predict_table(config())
    assert carried() == [("v1", 22.0), ("v2", 4.0), ("v3", 6.0), ("v4", 8.0)]
    undo_run(config(), first.run_id)
    predict_table(config(mode="full"))
    assert carried() == [("v1", 22.0), ("v2", 4.0), ("v3", 6.0), ("v4", 8.0)]


def test_keys_of_several_columns_are_followed(tmp_path: Path) -> None:
    rows = pa.table({"id": [0, 0, 1], "version": [0, 1, 0], "x": [0.0, 1.0, 2.0]})
    write_deltalake(tmp_path / "source", rows, configuration=FEED)
    config = job(tmp_path, source__key=["id", "version"], source__changes="upsert")
    assert predict_table(config).rows == 3
    DeltaTable(tmp_path / "source").update(updates={"x": "x + 10"}, predicate="id = 0 AND version = 1")
    assert predict_table(config).rows == 1
    found = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert sorted((row["id"], row["version"], row["out"]["y"]) for row in found) == [(0, 0, 0), (0, 1, 22), (1, 0, 4)]


@pytest.mark.parametrize("kind", [pa.map_(pa.string(), pa.int64()), pa.list_(pa.map_(pa.string(), pa.int64()))])
def test_a_key_that_cannot_be_compared_is_named_before_anything_runs(tmp_path: Path, kind: pa.DataType) -> None:
    value: Any = [("a", 1)] if pa.types.is_map(kind) else [[("a", 1)]]
    write(tmp_path, "k", [value], kind=kind)
    for values in ({}, {"source__changes": "upsert"}, {"mode": "missing"}):
        with pytest.raises(LakemillError) as raised:
            predict_table(config_of(tmp_path, "k", **values))
        assert raised.value.code == "KEY_TYPE"
        assert "'k'" in raised.value.message
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "missing"},
        {"mode": "where", "source__where": "changed = 9"},
        {"source__changes": "upsert", "source__change_column": "changed", "name": "by_column"},
    ],
)
def test_a_second_row_with_a_known_key_is_found_in_every_mode(tmp_path: Path, values: dict[str, Any]) -> None:
    write(tmp_path, "id", [1, 2])
    predict_table(config_of(tmp_path, "id", **{name: value for name, value in values.items() if name != "mode"}))
    before = results(tmp_path, "id")
    write(tmp_path, "id", [2], start=9.0)
    with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\] 2 of \d rows"):
        predict_table(config_of(tmp_path, "id", **values))
    assert results(tmp_path, "id") == before


def test_copies_are_rows_whose_whole_input_is_equal(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "id": range(5),
            "content": ["a", "a", "bb", "bb", None],
            "sha256": ["same"] * 5,
            "__digest": ["same"] * 5,
            "lab": [0.0, 1.0, 2.0, 3.0, 4.0],
        }
    )
    write_deltalake(tmp_path / "source", rows)
    step = {
        "function": "tests.local.job_functions:length",
        "inputs": {"x": "content"},
        "outputs": {"y": {"dtype": "float64"}},
    }
    config = job(
        tmp_path,
        source__columns=["lab", "__digest"],
        deduplicate="content",
        pipeline__steps=[{"python": step}],
        pipeline__checks=[{"name": "odd", "expr": "in.lab > 1.5 AND in.lab < 2.5"}],
    )
    for _ in range(2):  # the second takes over what the first scored
        predict_table(config)
        found = {row["id"]: row for row in DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()}
        assert [found[number]["out"]["y"] for number in range(4)] == [1.0, 1.0, 2.0, 2.0]
        assert [found[number]["anomaly"]["odd"] for number in range(4)] == [False, False, True, False]
        assert len({found[number]["metadata"]["input_sha256"] for number in range(4)}) == 4
        write_deltalake(
            tmp_path / "source", rows.slice(0, 4).set_column(0, "id", pa.array([10, 11, 12, 13])), mode="append"
        )
    assert [found[number]["anomaly"]["odd"] for number in (10, 11, 12, 13)] == [False, False, True, False]
