"""A configuration's problems are named with their key, what was expected and what was got."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest

from lakemill.config.base import parse_bytes
from lakemill.config.ingest import IngestConfig
from lakemill.config.predict import PredictConfig
from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep

GOOD = """
source: {table: lake/images, key: [path]}
pipeline:
  steps:
    - image: {column: content, mode: L, size: [8, 8], layout: flat, output: pixels}
    - model: {uri: "models:/digits@production", inputs: {x: pixels}, outputs: {y: {dtype: float32, shape: [3]}}}
    - python: {function: "features:scale", outputs: {z: {dtype: float32, shape: [2, null]}}}
    - format: {input: y, labels: [a, b, c]}
  checks:
    - {name: unsure, expr: "out.probability < 0.5"}
output: {table: lake/predictions}
engine:
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD.removesuffix("engine:\n"))
    return path


def test_yaml_becomes_the_steps_that_workers_run(file: Path) -> None:
    pipeline = PredictConfig.load(file).pipeline.declared()
    image, model, python, form = pipeline.steps
    assert isinstance(image, ImageStep)
    assert image.size == (8, 8)
    assert isinstance(model, ModelStep)
    assert model.inputs == {"x": "pixels"}
    assert isinstance(python, PythonStep)
    assert python.outputs == {"z": {"dtype": "float32", "shape": [2, None]}}
    assert isinstance(form, FormatStep)
    assert form.labels == ("a", "b", "c")
    assert Pipeline.from_yaml(file).steps == pipeline.steps
    assert Pipeline.from_dict(pipeline.to_dict()).to_dict() == pipeline.to_dict()
    assert Pipeline.from_dict(pipeline.to_dict()).version == pipeline.version


def test_tuples_at_any_depth_have_the_same_json_form() -> None:
    step = PythonStep("m:f", {"y": {"dtype": "float32", "shape": (2, 3)}})
    again = Pipeline.from_dict(Pipeline((step,)).to_dict())
    assert again.to_dict() == {
        "steps": [{"python": {"function": "m:f", "outputs": {"y": {"dtype": "float32", "shape": [2, 3]}}}}]
    }
    assert again.version == Pipeline((step,)).version


def test_overrides_are_laid_over_the_file(file: Path) -> None:
    file.write_text(GOOD)  # with an empty section
    config = PredictConfig.load(
        file, ["engine.batch_rows=16", "engine.batch_bytes=8MiB", "source.columns=[label]"], output__table="other"
    )
    assert (config.engine.batch_rows, config.engine.batch_bytes) == (16, 8 * 2**20)
    assert config.source.columns == ("label",)
    assert config.output.table == "other"


@pytest.mark.parametrize(
    ("written", "size"), [("64MiB", 64 * 2**20), ("1.5 kb", 1500), ("7", 7), (7, 7), ("2GiB", 2**31), ("3 B", 3)]
)
def test_sizes_have_units(written: Any, size: int) -> None:
    assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.batch_row=1", "unknown key 'engine.batch_row', did you mean 'batch_rows'?"),
        ("sources.table=x", "unknown key 'sources', did you mean 'source'?"),
        ("modle=full", "unknown key 'modle', did you mean 'mode'?"),
        ("pipeline.steps=[{modle: {uri: x}}]", "unknown key 'pipeline.steps.0.modle', did you mean 'model'?"),
        ("checkpoint=x", "unknown key 'checkpoint', did you mean 'output.checkpoint'?"),
        ("max_ratio=1", "unknown key 'max_ratio', did you mean 'quarantine.max_ratio'?"),
        ("resize_shorter=9", "unknown key 'resize_shorter', did you mean 'pipeline.steps.image.resize_shorter'?"),
        ("output.colour=1", "unknown key 'output.colour'; there are: table, dataset, checkpoint"),
        ("engine.batch_bytes=64 apples", "'64 apples' is no size; write a number of bytes or 512KiB, 64MiB, 2GiB"),
        ("engine.batch_bytes=[1]", "'engine.batch_bytes' must be a whole number; got a list"),
        ("engine.batch_rows=0", "'engine.batch_rows' must be 1 or more or auto; got 0"),
        ("engine.batch_rows=many", "'engine.batch_rows' must be a whole number or auto; got 'many'"),
        ("source.version=[1]", "'source.version' must be a whole number or a text; got a list"),
        ("source.key=path", "'source.key' must be a list, write [path]; got 'path'"),
        ("source=null", "'source' must be a mapping; got nothing (null)"),
        ("mode=incremntal", "'mode' must be incremental, full, where or missing; got 'incremntal', did you mean"),
        ("output.dataset=[tim]", "'output.dataset.0' must be *, time, in, out, anomaly or metadata; got 'tim'"),
        ("quarantine.max_ratio=1.5", "'quarantine.max_ratio' must be 1.0 or less; got 1.5"),
        ("pipeline.uri=models:/x@y", "'pipeline': give either 'uri' or 'steps'"),
        ("source.version=3", "source.version (time travel) needs mode: full"),
        ("pipeline.steps=[{image: {size: [8, 8], colum: x}}]", "did you mean 'column'?"),
        ("pipeline.steps=[{image: {size: [8]}}]", "'pipeline.steps.0.image.size' is too short"),
        ("pipeline.steps=[{image: {size: [8, 8, 8]}}]", "'pipeline.steps.0.image.size' must be a list of 2"),
        ("pipeline.steps=[{image: {size: [8, 8]}, model: {uri: x}}]", "a step is exactly one of image, model, python"),
        ("pipeline.steps=[{model: {}}]", "'pipeline.steps.0.model.uri' is missing"),
        ("pipeline.steps=[{format: {input: y, labels: [1]}}]", "'pipeline.steps.0.format.labels.0' must be a text"),
    ],
)
def test_each_problem_names_its_key_in_the_files_words(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PredictConfig.load(file, [override])
    assert caught.value.code == "CONFIG_INVALID"
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not re.search(r"constrained|tuple|literal|valid |Input|\.int\b|\.str\b|pydantic", str(caught.value))
    assert ".." not in str(caught.value).partition(" Hint:")[0].replace("...", "")


def test_a_mapping_with_one_fault_is_not_told_that_it_could_have_been_a_word() -> None:
    with pytest.raises(ConfigError) as caught:
        IngestConfig.load(None, ["source={path: x, label: {patern: y}}", "output.table=z"])
    assert caught.value.message == (
        "arguments: 'source.label.pattern' is missing; unknown key 'source.label.patern', did you mean 'pattern'?"
    )


def test_variables_of_the_environment_are_values(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE", "s3://bucket/lake")
    monkeypatch.setenv("ROWS", "16")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    overrides = (
        "output.table=${LAKE}/predictions",
        "engine.batch_rows=${ROWS}",
        "source.columns=['a_${ROWS}', '${EMPTY:-label}']",
        "source.where=x > ${UNSET:-3} AND y = '$${ROWS}'",
    )
    config = PredictConfig.load(file, overrides, registry="sqlite:///${LAKE}")
    assert config.output.table == "s3://bucket/lake/predictions"
    assert config.engine.batch_rows == 16
    assert config.source.columns == ("a_16", "label")
    assert config.source.where == "x > 3 AND y = '${ROWS}'"
    assert config.registry == "sqlite:///s3://bucket/lake"
    with pytest.raises(
        ConfigError, match=r"^\[CONFIG_VARIABLE\] 'pipeline.steps.0.model.uri' needs the variable 'UNSET'"
    ):
        PredictConfig.load(file, ["pipeline.steps=[{model: {uri: '${UNSET}'}}]"])


def test_what_a_variable_stands_for_is_in_no_message(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "correct-horse")
    with pytest.raises(ConfigError) as caught:
        PredictConfig.load(file, ["mode=${TOKEN}", "engine.batch_bytes=${TOKEN}", "engine.batch_rows=x-${TOKEN}"])
    assert "correct-horse" not in "".join(traceback.format_exception(caught.value))
    assert "got '${TOKEN}'" in str(caught.value)
    assert "got 'x-${TOKEN}'" in str(caught.value)


@pytest.mark.parametrize("override", ["engine", "=3", "engine.batch_rows=[1", "source.table.x=1"])
def test_an_override_that_is_none(file: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[CONFIG_OVERRIDE\]"):
        PredictConfig.load(file, [override])


@pytest.mark.parametrize("column", ["time", "in", "out", "anomaly", "error", "metadata", "_task", "Time", "METADATA"])
@pytest.mark.parametrize("key", ["key", "columns"])
def test_a_predictions_own_columns_are_not_carried(file: Path, key: str, column: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[COLUMN_RESERVED\] column '{column}'"):
        PredictConfig.load(file, [f"source.{key}=[{column}]"])


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("source:\n  table: [lake\noutput: x\n")
    with pytest.raises(ConfigError, match=r"^\[CONFIG_YAML\] '.*broken.yaml' is not valid YAML at line 3, column 7"):
        PredictConfig.load(broken)
    broken.write_text("name: a\nsource: {table: lake/x}\nname: b\n")
    with pytest.raises(ConfigError, match=r"^\[CONFIG_YAML\] .* at line 3, column 1: the key 'name' stands twice\."):
        PredictConfig.load(broken)
    broken.write_text("- a\n")
    with pytest.raises(ConfigError, match=r"^\[CONFIG_YAML\] .* must hold a mapping at its top; got list"):
        PredictConfig.load(broken)
    for path in (tmp_path / "gone.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"^\[CONFIG_NOT_FOUND\]"):
            PredictConfig.load(path)


@pytest.mark.parametrize("raw", [{}, {"image": {}, "model": {}}, {"imge": {}}, {"model": {"uri": "x", "newer": 1}}])
def test_a_step_of_no_known_kind_or_arguments(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\[PIPELINE_STEP\]"):
        Pipeline.from_dict({"steps": [raw]})


def test_a_pipeline_has_steps_and_its_checks_have_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"^\[PIPELINE_EMPTY\]"):
        Pipeline(())
    with pytest.raises(ConfigError, match=r"^\[CHECK_NAME\]"):
        Pipeline.from_dict({"steps": [{"model": {"uri": "x"}}], "checks": [{"name": "a", "expr": "out.x > 1"}] * 2})
