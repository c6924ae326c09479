"""What a commit of the source comes to: keys that change, commits larger than a batch, keys that repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig
from tests.both.on import On
from tests.lake import OWN_FUNCTIONS, add_rows, numbers_job


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(OWN_FUNCTIONS))


def job(lake: Path, *, key: str = "id", **values: Any) -> PredictConfig:
    return numbers_job(lake, **{"source__key": [key], "source__changes": "upsert"} | values)


def source(lake: Path) -> DeltaTable:
    return DeltaTable(lake / "numbers")


def rows_by_key(table: Path, key: str) -> dict[Any, dict[str, Any]]:
    """Read predictions with the independent reader."""
    rows = DeltaTable(table).to_pyarrow_table().to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def predictions(lake: Path, key: str = "id") -> dict[Any, float]:
    return {name: row["out"]["y"] for name, row in rows_by_key(lake / "predictions", key).items()}


def test_a_key_that_is_changed_takes_its_prediction_along(tmp_path: Path, on: On) -> None:
    add_rows(tmp_path / "numbers", {"a.id": [1, 2, 3], "x": [1.0, 2.0, 3.0]})
    config = job(tmp_path, key="a.id", source__where="x < 50")
    on.predict(config)
    source(tmp_path).update({'"a.id"': "100"}, predicate='"a.id" = 1')
    source(tmp_path).update({"x": "99.0"}, predicate='"a.id" = 2')
    on.predict(config)
    assert predictions(tmp_path, "a.id") == {3: 6.0, 100: 2.0}
    for mode in ("missing", "full"):
        on.predict(job(tmp_path, key="a.id", mode=mode, name=mode, output__table=f"{tmp_path}/{mode}"))
        assert len(rows_by_key(tmp_path / mode, "a.id")) == 3


def numbers(count: int, more: float) -> dict[str, Any]:
    rows = range(count)
    return {"id": rows, "x": [number + more for number in rows], "file": [number % 2 for number in rows]}


def score_around(lake: Path, on: On, change: Callable[[Path], object]) -> None:
    """Score 2,000 rows, change them all in one commit, add a row, and score again in batches of a part of them."""
    table = lake / "numbers"
    add_rows(table, numbers(1, 0.0), partition_by=["file"])
    add_rows(table, numbers(2000, 0.0), mode="overwrite")
    config = job(lake, engine={"max_bytes_per_trigger": 5000})
    on.predict(config)
    assert len(predictions(lake)) == 2000
    change(table)
    add_rows(table, {"id": [5000], "x": [1.0], "file": [0]})
    on.predict(config)
    assert on.predict(config).batches == 0


@pytest.mark.seam
def test_an_overwrite_larger_than_a_batch_is_one_unit(tmp_path: Path, on: On) -> None:
    score_around(tmp_path, on, lambda table: add_rows(table, numbers(2000, 1.0), mode="overwrite"))
    assert predictions(tmp_path) == {number: 2 * (number + 1.0) for number in range(2000)} | {5000: 2.0}


def test_a_restore_larger_than_a_batch_is_one_unit(tmp_path: Path, on: On) -> None:
    def restore(table: Path) -> None:
        DeltaTable(table).delete("id >= 3")
        DeltaTable(table).restore(1)

    score_around(tmp_path, on, restore)
    assert predictions(tmp_path) == {number: 2 * float(number) for number in range(2000)} | {5000: 2.0}


def test_a_repeated_key_is_found_over_several_commits_and_the_way_on_works(tmp_path: Path, on: On) -> None:
    add_rows(tmp_path / "numbers", {"id": [1, 2], "x": [1.0, 3.0]})
    on.predict(job(tmp_path))
    version = DeltaTable(tmp_path / "predictions").version()
    add_rows(tmp_path / "numbers", {"id": [2, 3], "x": [9.0, 5.0]})
    for mode in ({}, {"mode": "missing"}, {"mode": "where", "source__where": "x = 9"}):
        config = job(tmp_path, source__columns=["x"], **mode) if mode else job(tmp_path)
        with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\] 2 of [234] rows") as raised:
            on.predict(config)
        assert "nothing of this batch was written" in str(raised.value)
    there = DeltaTable(tmp_path / "predictions")
    assert {row["id"] for row in there.to_pyarrow_table().to_pylist()} == {1, 2}
    assert there.version() <= version + 1  # the carried column that was added
    source(tmp_path).delete("x = 9")
    on.predict(job(tmp_path))
    assert predictions(tmp_path) == {1: 2.0, 2: 6.0, 3: 10.0}


def test_a_new_key_that_two_commits_bring_is_found_in_one_slice(tmp_path: Path, on: On) -> None:
    add_rows(tmp_path / "numbers", {"id": [1], "x": [1.0]})
    on.predict(job(tmp_path))
    for x in (5.0, 6.0):
        add_rows(tmp_path / "numbers", {"id": [9], "x": [x]})
    with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\] 2 of 2 rows"):
        on.predict(job(tmp_path))
    assert predictions(tmp_path) == {1: 2.0}
    source(tmp_path).delete("x = 6")
    on.predict(job(tmp_path))
    assert predictions(tmp_path) == {1: 2.0, 9: 10.0}


def test_a_key_that_cannot_be_compared_is_named_before_anything_runs(tmp_path: Path, on: On) -> None:
    add_rows(tmp_path / "numbers", {"k": pa.array([[(1, 2)]], pa.map_(pa.int32(), pa.int32())), "x": [1.0]})
    for values in ({}, {"source__changes": "append"}, {"mode": "missing"}):
        with pytest.raises(LakemillError) as raised:
            on.predict(job(tmp_path, key="k", **values))
        assert raised.value.code == "KEY_TYPE"
        assert "'k'" in raised.value.message
        assert "map<int,int>" in raised.value.message
    assert not (tmp_path / "predictions").exists()


def test_copies_are_rows_whose_whole_input_is_equal(tmp_path: Path, on: On) -> None:
    rows = {"id": range(4), "x": ["a", "a", "ab", "ab"], "sha256": ["same"] * 4, "lab": [0.0, 1.0, 2.0, 3.0]}
    add_rows(tmp_path / "numbers", rows)
    checked = job(
        tmp_path,
        function="length",
        source__changes="append",
        source__columns=["lab"],
        deduplicate="content",
        pipeline__checks=[{"name": "odd", "expr": "in.lab > 1.5 AND in.lab < 2.5"}],
    )
    on.predict(checked)
    found = rows_by_key(tmp_path / "predictions", "id")
    assert [found[number]["out"]["y"] for number in range(4)] == [1.0, 1.0, 2.0, 2.0]
    assert [found[number]["anomaly"]["odd"] for number in range(4)] == [False, False, True, False]
