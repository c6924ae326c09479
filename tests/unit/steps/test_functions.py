"""A user's function gets what its annotation asks for."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakemill import Pipeline, PythonStep
from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.steps.functions import call_function, import_function
from tests.unit import features

X = np.arange(6, dtype="float32").reshape(3, 2)


@pytest.mark.parametrize("function", [features.double, features.double_frame, features.double_table])
@pytest.mark.parametrize("x", [X[:, 0], X], ids=["scalars", "rows"])
def test_dicts_frames_and_tables_give_the_same(function: object, x: np.ndarray) -> None:
    result = call_function(function, {"x": x})  # type: ignore[arg-type]  # a parameter of three types
    np.testing.assert_array_equal(result["y"], x * 2)


@pytest.mark.parametrize("function", [features.same_table, features.same_batch])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 1)])
def test_tensors_of_any_rank_pass_through_arrow(function: object, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    result = call_function(function, {"x": x, "s": np.array(["a", "b", "c", "d"], dtype=object)})  # type: ignore[arg-type]  # as above
    assert result["x"].dtype == "float32"
    np.testing.assert_array_equal(result["x"], x)
    assert result["s"].tolist() == ["a", "b", "c", "d"]


def test_any_other_result_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^\[FUNCTION_RESULT\] .* got float"):
        call_function(features.number, {"x": X})


@pytest.mark.parametrize("path", ["tests.unit.features:missing", "tests.unit.nowhere:double"])
def test_a_function_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[FUNCTION_NOT_FOUND\] '{path}'"):
        import_function(path)


def test_a_shipped_module_replaces_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for version in (1, 2):
        folder = tmp_path / f"shipped-{version}.zip"
        folder.mkdir()
        (folder / "lakemill_shipped.py").write_text(f"def version(): return {version}\n")
        sys.path.append(str(folder))
        assert import_function("lakemill_shipped:version", folder.name)() == version


def shipped(folder: Path, version: int, *, is_plain: bool) -> str:
    """Write a package as workers get it, a plain one without ``__init__.py``, and return its archive's name."""
    archive = folder / f"shipped_steps-{version}.zip"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("shipped_steps/", "")
        if not is_plain:
            package.writestr("shipped_steps/__init__.py", "")
        package.writestr("shipped_steps/numbers.py", f"VERSION = {version}\n")
        package.writestr(
            "shipped_steps/steps.py", "from shipped_steps.numbers import VERSION\n\ndef run():\n    return VERSION\n"
        )
    return archive.name


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_reused_worker_runs_a_new_version_of_a_package_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_plain: bool
) -> None:
    path = "shipped_steps.steps:run"
    for version in (1, 2):
        name = shipped(tmp_path, version, is_plain=is_plain)
        monkeypatch.syspath_prepend(str(tmp_path / name))
        assert import_function(path, name)() == version
    # A task of an earlier plan that comes late gets its own version again.
    assert import_function(path, "shipped_steps-1.zip")() == 1
    for module in [name for name in sys.modules if name.startswith("shipped_steps")]:
        monkeypatch.delitem(sys.modules, module)


def square(value: float) -> Any:
    """Return a value's tensor, and none for 2."""
    return None if value == 2 else np.full((2, 2), value, "float32")


@pytest.mark.parametrize("missing", [1.0, 2.0])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: {"y": [square(value) for value in x]},
        lambda x: pd.DataFrame({"y": [square(value) for value in x]}),
    ],
    ids=["list", "frame"],
)
def test_a_null_among_tensors_is_one_row_s_null(function: Callable[..., Any], missing: float) -> None:
    step = PythonStep(function, {"y": {"dtype": "float32", "shape": [2, 2]}}, {"x": "x"})
    values = np.array([2.0, 1.0, 3.0] if missing == 1 else [1.0, 2.0, 3.0])
    got = Pipeline([step]).infer({"x": values})["out.y"]
    assert got == [None if value == 2 else [[value] * 2] * 2 for value in values]


def test_rows_of_different_size_are_given_in_one_call() -> None:
    calls: list[int] = []

    def grown(x: Any) -> dict[str, Any]:
        calls.append(len(x))
        return {"y": [np.full((int(value), 2), value, "float32") for value in x]}

    step = PythonStep(grown, {"y": {"dtype": "float32", "shape": [None, 2]}}, {"x": "x"})
    got = Pipeline([step]).infer({"x": np.array([1.0, 2.0, 3.0])})["out.y"]
    assert [len(rows) for rows in got] == [1, 2, 3]
    assert calls == [3, 1], "all at once, and the first row once more to see that an output's first axis is the row"


NULLS = {
    "polars": lambda x: pl.DataFrame({"y": x}),
    "arrow": lambda x: pa.table({"y": x}),
    "list": lambda x: {"y": x},
    "array": lambda x: {"y": pa.array(x)},
    "chunks": lambda x: {"y": pa.chunked_array([x[:1], x[1:]])},
    "series": lambda x: {"y": pl.Series(x)},
    "pandas": lambda x: pd.DataFrame({"y": pd.array(x)}),
    "pandas series": lambda x: {"y": pd.Series(pd.array(x))},
}


@pytest.mark.parametrize("form", NULLS)
@pytest.mark.parametrize(("dtype", "kind"), [("int64", int), ("float64", float), ("string", str)])
def test_a_null_answer_is_null_in_every_form(form: str, dtype: str, kind: Callable[[float], Any]) -> None:
    """Never NaN, nor a number of another kind."""

    def answer(x: Any) -> Any:
        return NULLS[form]([None if value == 2 else kind(value) for value in x])

    step = PythonStep(answer, {"y": {"dtype": dtype}}, {"x": "x"})
    got = Pipeline([step]).infer(pa.table({"x": [1.0, 2.0, 3.0]}))["out.y"]
    assert got.to_pylist() == [kind(1.0), None, kind(3.0)]


def test_a_polars_frame_of_tensors_is_a_result() -> None:
    x = np.arange(12, dtype="float32").reshape(3, 2, 2)
    step = PythonStep(lambda x: pl.DataFrame({"y": x * 2}), {"y": {"dtype": "float32", "shape": [2, 2]}}, {"x": "x"})
    np.testing.assert_array_equal(Pipeline([step]).infer({"x": x})["out.y"], x * 2)


@pytest.mark.parametrize("dtype", ["float64", "string"])
def test_a_value_of_another_class_is_named(dtype: str) -> None:
    step = PythonStep(lambda x: {"y": [Decimal("1.5")] * len(x)}, {"y": {"dtype": dtype}}, {"x": "x"})
    with pytest.raises(ModelError, match=rf"^\[OUTPUT_DTYPE\] y: expected {dtype}, got Decimal\."):
        Pipeline([step]).infer({"x": np.array([1.0, 2.0])})
