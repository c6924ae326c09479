"""A user's function gets what its annotation asks for."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

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
