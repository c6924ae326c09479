"""A function that is edited while a process lives: what scores is the code that the rows' version names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ConfigError, Pipeline, PredictConfig, PythonStep, predict_table

CODE = "from edited_helpers.factor import FACTOR\n\n\ndef scaled(x):\n    return {{'y': x * FACTOR + {added}}}\n"


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with a source and a user's module ``edited_helpers.steps``, importable here."""
    (tmp_path / "edited_helpers").mkdir()
    (tmp_path / "edited_helpers" / "__init__.py").touch()
    write(tmp_path, added=1.0, factor=2.0)
    add(tmp_path, 0)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("edited_helpers")]:
        del sys.modules[name]


def write(lake: Path, *, added: float, factor: float) -> None:
    """Save the module as an editor does: same names, same sizes, within the same second."""
    (lake / "edited_helpers" / "steps.py").write_text(CODE.format(added=added))
    (lake / "edited_helpers" / "factor.py").write_text(f"FACTOR = {factor}\n")


def add(lake: Path, start: int) -> None:
    ids = pa.array(range(start, start + 3))
    write_deltalake(lake / "source", pa.table({"id": ids, "x": ids.cast(pa.float64())}), mode="append")


def score(
    lake: Path, workers: str, progress: Callable[[str], None] | None = None, *, batch_rows: int | str = "auto"
) -> None:
    step = {"function": "edited_helpers.steps:scaled", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    config = PredictConfig.load(
        None,
        (),
        name="edited",
        source={"table": str(lake / "source"), "key": ["id"]},
        pipeline={"steps": [{"python": step}]},
        output={"table": str(lake / "predictions")},
        engine={"name": "local", "workers": workers, "batch_rows": batch_rows},
    )
    predict_table(config, progress=progress)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_new_rows_are_scored_by_the_edited_code_under_its_version(lake: Path, workers: str) -> None:
    score(lake, workers)
    write(lake, added=5.0, factor=2.0)
    add(lake, 3)
    score(lake, workers)
    write(lake, added=5.0, factor=3.0)  # in a module that the function's own imports
    add(lake, 6)
    score(lake, workers)
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().sort_by("id").to_pylist()
    assert [row["out"]["y"] for row in rows] == [1.0, 3.0, 5.0, 11.0, 13.0, 15.0, 23.0, 26.0, 29.0]
    versions = [row["metadata"]["pipeline_version"] for row in rows]
    assert len(set(versions)) == 3
    assert versions == sorted(versions, key=versions.index)


def test_code_that_is_as_it_was_is_imported_once(lake: Path) -> None:
    (lake / "edited_helpers" / "steps.py").write_text(
        "import pathlib\n\nplace = pathlib.Path(__file__).with_name('imports.txt')\n"
        "place.write_text(place.read_text() + '.' if place.exists() else '.')\n\n\n"
        "def scaled(x):\n    return {'y': x}\n"
    )
    score(lake, "threads")
    before = (lake / "edited_helpers" / "imports.txt").read_text()
    add(lake, 3)
    score(lake, "threads")
    assert (lake / "edited_helpers" / "imports.txt").read_text() == before


def test_a_function_object_of_the_older_text_names_the_edited_function(lake: Path) -> None:
    from edited_helpers.steps import scaled  # type: ignore[import-not-found]  # the fixture writes it

    step = PythonStep(scaled, {"y": {"dtype": "float64"}}, {"x": "x"})
    assert Pipeline((step,)).infer({"x": np.array([1.0])})["out.y"] == [3.0]
    write(lake, added=7.0, factor=2.0)
    again = PythonStep(scaled, {"y": {"dtype": "float64"}}, {"x": "x"})
    assert Pipeline((again,)).infer({"x": np.array([1.0])})["out.y"] == [9.0]
    assert PythonStep(scaled, {"y": {"dtype": "float64"}}, {"x": "x"}).function == "edited_helpers.steps:scaled"


def test_functions_of_an_edited_package_keep_their_import_paths(lake: Path) -> None:
    """Also those of its modules that nothing has run since."""
    (lake / "edited_helpers" / "others.py").write_text("def same(x):\n    return {'y': x}\n")
    steps, others = (importlib.import_module(f"edited_helpers.{name}") for name in ("steps", "others"))
    spec = {"y": {"dtype": "float64"}}
    for added in (1.0, 3.0):
        write(lake, added=added, factor=2.0)
        scaled = Pipeline((PythonStep(steps.scaled, spec, {"x": "x"}),))
        assert scaled.infer({"x": np.array([1.0])}, dataset="out")["out.y"] == [2.0 + added]
        assert Pipeline((PythonStep(others.same, spec, {"x": "x"}),)).functions == ("edited_helpers.others:same",)


def test_a_new_folder_of_the_same_name_is_no_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without ``__init__.py`` lies wherever its name does, also in code that MLflow put on the path."""
    for place, module in (("one", "steps"), ("two", "others")):
        (tmp_path / place / "edited_spread").mkdir(parents=True)
        (tmp_path / place / "edited_spread" / f"{module}.py").write_text("def same(x):\n    return {'y': x}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    steps = importlib.import_module("edited_spread.steps")
    monkeypatch.syspath_prepend(str(tmp_path / "two"))
    other = PythonStep("edited_spread.others:same", {"y": {"dtype": "float64"}}, {"x": "x"})
    assert Pipeline((other,)).infer({"x": np.array([1.0])}, dataset="out")["out.y"] == [1.0]
    assert sys.modules["edited_spread.steps"] is steps
    assert Pipeline((PythonStep(steps.same, {"y": {"dtype": "float64"}}, {"x": "x"}),)).functions == (
        "edited_spread.steps:same",
    )
    for name in [name for name in sys.modules if name.startswith("edited_spread")]:
        del sys.modules[name]


def test_workers_that_start_after_an_edit_refuse_the_new_code_under_the_old_version(lake: Path) -> None:
    for start in range(3, 12, 3):
        add(lake, start)

    def edit(line: str) -> None:
        if line.startswith("pipeline"):  # it is resolved: its version is known, and no worker is there yet
            write(lake, added=5.0, factor=3.0)

    with pytest.raises(ConfigError, match=r"\[CODE_CHANGED\] the code of 'edited_helpers.steps:scaled'"):
        score(lake, "processes", edit, batch_rows=4)
    assert DeltaTable(lake / "predictions").count() == 0
    score(lake, "processes")
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().sort_by("id").to_pylist()
    assert [row["out"]["y"] for row in rows] == [3.0 * number + 5.0 for number in range(12)]
