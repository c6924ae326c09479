"""A pipeline as a value: what travels, what does not, and its YAML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.tensors.spec import TensorSpec
from tests.unit import features

Y = {"y": {"dtype": "float64"}}
LOCAL_STEP = PythonStep(lambda inputs: {"y": inputs["x"] + 1}, Y, {"x": "x"})
LOCAL_CHECK = Check("large", lambda: pl.col("out").struct.field("y") > 2)
IMPORTED = PythonStep(features.double, Y, {"x": "x"})


def test_functions_without_an_import_path_work_in_this_process() -> None:
    result = Pipeline((LOCAL_STEP,), (LOCAL_CHECK,)).infer({"x": np.array([1.0, 2.0])})
    assert result["out.y"] == [2, 3]
    assert result["anomaly.large"] == [False, True]


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [(Pipeline((LOCAL_STEP,)), "<lambda>"), (Pipeline((IMPORTED,), (LOCAL_CHECK,)), "<lambda>")],
    ids=["step", "check"],
)
def test_functions_without_an_import_path_are_refused_where_they_would_have_to_travel(
    pipeline: Pipeline, name: str
) -> None:
    reason = rf"^\[FUNCTION_LOCAL\] '{name}' has no import path, so it cannot travel to "
    with pytest.raises(ConfigError, match=reason + "YAML"):
        pipeline.to_yaml()
    with pytest.raises(ConfigError, match=reason + "MLflow"):
        pipeline.log()


def test_a_function_of_a_module_is_its_import_path() -> None:
    pipeline = Pipeline((IMPORTED,), (Check("large", features.is_large), Check("same", "tests.unit.features:is_large")))
    assert pipeline.functions == ("tests.unit.features:double", *["tests.unit.features:is_large"] * 2)
    result = pipeline.infer({"x": np.array([1.0, 2.0])})
    assert result["anomaly.large"] == result["anomaly.same"] == [False, True]


def test_yaml_there_and_back_means_the_same(tmp_path: Path) -> None:
    pipeline = Pipeline(
        (
            ImageStep(mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), layout="flat", output="pixels"),
            ModelStep("models:/digits@production", {"x": "pixels"}, {"raw": "logits", "extra": {"dtype": "int64"}}),
            PythonStep(features.double, {"y": {"dtype": "float32", "shape": [None, 4], "as": "array"}}, {"x": "extra"}),
            FormatStep("logits", softmax=True, top_k=2, labels=("null", "Ä", "3"), outputs={"probability": None}),
            FormatStep("y", threshold=0.5, outputs={"above": "is_above"}),
        ),
        (Check("unsure", "out.label IS NULL"), Check("large", features.is_large)),
        ("label", "is_above", "logits"),
        (TensorSpec("extra_column", "uint8", (2, 2)),),
    )
    text = pipeline.to_yaml(tmp_path / "pipeline.yaml")
    again = Pipeline.from_yaml(tmp_path / "pipeline.yaml")
    assert again.to_dict() == pipeline.to_dict() == yaml.safe_load(text)
    assert again.version == pipeline.version
    assert again.to_yaml() == text
