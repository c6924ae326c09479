"""The notebooks run from the first cell to the last, on a plain machine."""

from __future__ import annotations

import ast
import io
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from PIL import Image

from lakemill.demo.walk import DemoResult
from lakemill.pipelines.registry import mlflow_at

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


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


@pytest.mark.usefixtures("spark")
def test_explore(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEMILL_LAKE", str(demo.lake))
    names = runpy.run_path(str(NOTEBOOKS / "00_explore.py"), run_name="__main__")
    assert len(names["from_folder"].data) == len(names["from_table"].data) == 10
    assert names["labels"]["count"].sum() == demo.images
    assert len(names["aside"]) == demo.rejected


@pytest.mark.usefixtures("spark")
def test_etl(demo: DemoResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(demo.lake / "files/photos", tmp_path / "files/photos")
    monkeypatch.setenv("LAKEMILL_LAKE", str(tmp_path))
    names = runpy.run_path(str(NOTEBOOKS / "01_etl.py"), run_name="__main__")
    assert names["ingested"].added == 80
    assert names["counts"].values.tolist() == [["china", 0, 40], ["flower", 1, 40]]
    assert len(names["plotted"].data) == 20
    grey = DeltaTable(tmp_path / "tiles_grey").to_pandas()
    assert set(grey["path"]) == set(DeltaTable(tmp_path / "tiles").to_pandas()["path"])
    assert {Image.open(io.BytesIO(content)).mode for content in grey["content"]} == {"L"}
    assert grey["label_index"].notna().all(), "what was left out came back by the join"
    assert len(DeltaTable(tmp_path / "tiles_thumbnails").to_pandas()) == 80
    assert names["optimized"]["files_removed"] > names["optimized"]["files_added"]


def test_registry_inference_and_time_travel(demo: DemoResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a copy of the lake, whose alias moves; without Spark, in a process of its own."""
    lake = tmp_path / "lake"
    shutil.copytree(demo.lake, lake)
    monkeypatch.setenv("LAKEMILL_LAKE", str(lake))
    large, aliases, refused = after("05_registry.py", "large, aliases, [error.code for error in refusals]")
    assert {alias: str(version) for alias, version in aliases.items()} == {"production": large, "staging": large}
    assert refused == ["MODEL_NOT_PROMOTED"] * 2
    rows, accuracy, models = after("06_inference.py", "done.rows, accuracy, list(models)")
    assert (rows, models) == (demo.rows, [("digits", large)])
    assert accuracy > 0.9
    assert (lake / "inference_report.html").is_file()
    then, now, before, again = after(
        "08_time_travel.py", "len(trained_on), len(today), before['out'], {k[4:]: v for k, v in again.items()}"
    )
    assert now == then + 10, "rows that came later are not in what was trained on"
    assert before == again, "the same bits"


def after(notebook: str, expression: str) -> Any:
    """Run a notebook, and return what an expression of its names is then."""
    code = f"{(NOTEBOOKS / notebook).read_text(encoding='utf-8')}\nprint()\nprint(repr(({expression})))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return ast.literal_eval(done.stdout.splitlines()[-1])
