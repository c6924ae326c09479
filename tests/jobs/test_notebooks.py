"""The notebooks run from the first cell to the last, on a plain machine."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakemill.demo.walk import DemoResult
from lakemill.pipelines.registry import mlflow_at

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.usefixtures("spark")
def test_quickstart(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEMILL_LAKE", str(demo.lake))
    with mlflow_at(demo.registry):  # puts MLflow's settings back, which the notebook changes
        names = runpy.run_path(str(NOTEBOOKS / "01_quickstart.py"), run_name="__main__")
    assert len(names["scored"]) == 10
    table = DeltaTable(demo.lake / "quickstart").to_pandas().set_index("path")
    assert list(names["scored"]["out.label"]) == list(table.loc[names["ten"]["path"], "out"].str["label"])
    assert len(names["gallery"](names["ten"]["content"].tolist(), names["captions"]).data) == 10
    assert (names["rows"], names["errors"]) == (demo.rows, demo.errors)
    assert len(table) == demo.rows
    assert names["report"].is_file()


@pytest.mark.usefixtures("spark")
def test_pipelines(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEMILL_LAKE", str(demo.lake))
    with mlflow_at(demo.registry):
        names = runpy.run_path(str(NOTEBOOKS / "12_pipelines.py"), run_name="__main__")
    assert len(names["scored"]) == 10
    assert all(labels == names["results"]["dict of an array"] for labels in names["results"].values())
    assert set(names["traced"]["out.weight"]) <= {"thin", "bold"}
    assert names["traced"]["out.where"][0].startswith(b"\x89PNG")
    assert names["refused"].code == "FUNCTION_LOCAL"
    assert not names["plan"].problems
    predicted = DeltaTable(demo.lake / "pipelines").to_pandas().set_index("path")
    assert list(predicted.loc[names["ten"]["path"], "out"].str["label"]) == list(names["scored"]["out.label"])
    assert sum(names["counts"]["count"]) == len(predicted)


@pytest.mark.usefixtures("spark")
def test_streaming(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEMILL_LAKE", str(demo.lake))
    names = runpy.run_path(str(NOTEBOOKS / "07_streaming.py"), run_name="__main__")
    assert [names[run].rows for run in ("first", "second", "third")] == [40, 10, 10]
    assert names["third"].rows_rescored == 50
    table = DeltaTable(demo.lake / "streaming").to_pandas()
    assert len(set(table["path"])) == len(table) == 60
    assert {row["models"][0]["version"] for row in table["metadata"]} == {"2"}


@pytest.mark.usefixtures("spark")
def test_traffic(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEMILL_LAKE", str(demo.lake))
    with mlflow_at(demo.registry):
        names = runpy.run_path(str(NOTEBOOKS / "11_traffic.py"), run_name="__main__")
    control, newer = names["arms"]
    assert control.rows + newer.rows == names["champion"].rows == names["challenger"].rows
    assert names["challenger"].correct.count > names["champion"].correct.count
    assert names["refused"].code == "PROMOTE_REFUSED"
    assert (names["promoted"].version, names["promoted"].version_before) == ("2", "1")
    moved = DeltaTable(demo.lake / "trial_shadow_promotions").to_pandas()["moved"]
    assert sorted(moved) == [False, True]
