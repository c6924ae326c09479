"""The code of a pipeline's functions is part of its version, travels without what is no code, and is not foreign."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lakemill.config.trust import Trust
from lakemill.engines import packages
from lakemill.engines.packages import user_package
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve, resolve_uri
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import Check, PythonStep
from lakemill_udfs.steps.traffic import EnsembleStep
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import factor_model

Y = {"y": {"dtype": "float64"}}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a package ``steps_of_mine`` that is importable, with all that may lie in such a folder."""
    folder = tmp_path / "steps_of_mine"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "scale.py").write_text("def run(x):\n    return {'y': x * 2.0}\n")
    (folder / "table.csv").write_text("1,2\n")
    (folder / ".env").write_text("TOKEN=secret\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def version(**step: object) -> str:
    pipeline = Pipeline((PythonStep("steps_of_mine.scale:run", Y, {"x": "x"}, **step),))  # type: ignore[arg-type]  # a shorthand
    return resolve(pipeline).pipeline.version


def test_edited_code_is_another_version(package: Path) -> None:
    before = version()
    assert version() == before
    (package / "helper.py").write_text("FACTOR = 3\n")
    other = version()
    assert other != before
    (package / "table.csv").write_text("3,4\n")
    assert version() == other, "what is not declared does not travel and is no part of the version"
    with_data = version(data=("*.csv",))
    (package / "table.csv").write_text("5,6\n")
    assert version(data=("*.csv",)) != with_data


def test_the_code_that_combines_an_ensemble_counts_too(package: Path, tmp_path: Path) -> None:
    models = {name: str(factor_model(tmp_path / f"{name}.onnx", factor)) for name, factor in (("a", 2), ("b", 3))}
    path = "steps_of_mine.scale:run"

    def of_version() -> str:
        return resolve(Pipeline((EnsembleStep(models, combine=path, outputs=Y),))).pipeline.version

    before = of_version()
    assert of_version() == before
    (package / "scale.py").write_text("def run(x):\n    return {'y': x * 1000.0}\n")
    assert of_version() != before


def test_the_code_of_a_checks_function_counts_too(package: Path) -> None:
    (package / "large.py").write_text(
        "import polars as pl\ndef is_large():\n    return pl.col('out').struct.field('y') > 1\n"
    )

    def checked() -> str:
        step = PythonStep("steps_of_mine.scale:run", Y, {"x": "x"})
        return resolve(Pipeline((step,), (Check("large", "steps_of_mine.large:is_large"),))).pipeline.version

    before = checked()
    (package / "large.py").write_text(
        "import polars as pl\ndef is_large():\n    return pl.col('out').struct.field('y') > 9\n"
    )
    assert checked() != before


def test_code_that_is_not_the_one_agreed_on(package: Path) -> None:
    step = resolve(Pipeline((PythonStep("steps_of_mine.scale:run", Y, {"x": "x"}),))).pipeline.steps[0]
    assert isinstance(step, PythonStep)
    assert step.sha256 is not None
    assert resolve(Pipeline((step,))).pipeline.steps == (step,)
    (package / "scale.py").write_text("def run(x):\n    return {'y': x * 1000.0}\n")
    with pytest.raises(ConfigError, match=rf"^\[CODE_CHANGED\] .* expected sha256 {step.sha256[:12]}"):
        resolve(Pipeline((step,)))


def test_what_travels_of_a_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = user_package("steps_of_mine.scale", data=("*.csv",))
    assert found is not None
    names = ["__init__.py", "scale.py", "table.csv"]
    assert [name for name, _ in found.files()] == [f"steps_of_mine/{name}" for name in names]
    for pattern in ("*.parquet", "/etc/passwd", "../*", "", "a/../../*"):
        missing = user_package("steps_of_mine", data=(pattern,))
        assert missing is not None
        with pytest.raises(ConfigError, match=rf"^\[CODE_DATA\] .* no file '{re.escape(pattern)}'"):
            missing.files()
    monkeypatch.setattr(packages, "MOST_BYTES", 10)
    with pytest.raises(ConfigError, match=r"^\[CODE_TOO_LARGE\]"):
        found.files()


def test_what_hides_or_leads_out_of_a_package_stays(package: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for place in ("outside/secret.py", "steps_of_mine/.hidden.py", "steps_of_mine/.venv/lib.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("")
    (package / "link.py").symlink_to(tmp_path / "outside/secret.py")
    (package / "folder").symlink_to(tmp_path / "outside")
    (package / "same.py").symlink_to(package / "scale.py")
    (package / "more").mkdir()
    (package / "more/stubs.pyi").write_text("")
    found = user_package("steps_of_mine", data=("folder/*.py", "table.csv"))
    assert found is not None
    names = ["__init__.py", "more/stubs.pyi", "same.py", "scale.py", "table.csv"]
    assert [name for name, _ in found.files()] == [f"steps_of_mine/{name}" for name in names]


def artifact(folder: Path, function: str, check: str | None = None) -> Path:
    """Write a model folder that holds no code of ours, only a pipeline that names functions."""
    inside = {"steps": [{"python": {"function": function, "outputs": Y, "inputs": {"x": "x"}}}]}
    if check:
        inside["checks"] = [{"name": "c", "expr": check}]  # type: ignore[list-item]  # JSON of two shapes
    folder.mkdir()
    content = {"flavors": {"python_function": {"loader_module": "m"}}, "metadata": {"lakemill_pipeline": inside}}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("names", [("subprocess:run", None), ("os:abort", None)])
def test_an_artifact_names_no_function_that_is_not_its_own(tmp_path: Path, names: tuple[str, str | None]) -> None:
    path = artifact(tmp_path / "model", *names)
    with pytest.raises(ConfigError, match=rf"^\[FUNCTION_NOT_TRUSTED\] .*{names[0]}"):
        resolve_uri(str(path))
    assert resolve_uri(str(path), trust=Trust(modules=(names[0].partition(":")[0],))).code == ()


def test_a_check_of_an_artifact_is_not_run_by_the_plan(tmp_path: Path) -> None:
    path = artifact(tmp_path / "model", "mine:run", "os:abort")
    (path / "code").mkdir()
    (path / "code" / "mine.py").write_text("def run(x):\n    return {'y': x}\n")
    with pytest.raises(ConfigError, match=r"^\[FUNCTION_NOT_TRUSTED\] .*os:abort"):
        resolve_uri(str(path))


def test_a_plan_imports_nothing_of_an_artifact_and_a_run_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = artifact(tmp_path / "model", "code_of_the_artifact:run")
    (path / "code").mkdir()
    marker = tmp_path / "imported"
    code = f"open({str(marker)!r}, 'w').close()\ndef run(x):\n    return {{'y': x * 7.0}}\n"
    (path / "code" / "code_of_the_artifact.py").write_text(code)
    resolved = resolve_uri(str(path))
    make_plan(resolved, {"x": TensorSpec("x", "float64")})
    assert not marker.exists()
    from lakemill.in_process.inference import Inference

    assert Inference(functools.partial(make_plan, resolved)).run({"x": np.array([1.0])})["out.y"] == [7.0]
    assert marker.exists()
    del sys.modules["code_of_the_artifact"]
    (path / "code" / "code_of_the_artifact.py").write_text("def other(x):\n    return {'y': x}\n")
    with pytest.raises(ConfigError, match=r"^\[FUNCTION_NOT_FOUND\]"):
        resolve_uri(str(path))
