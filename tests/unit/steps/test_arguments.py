"""A wrong type in a public constructor, or a function that cannot take its inputs, is said when the step is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakemill import Check, FormatStep, ImageStep, ModelStep, Pipeline, PythonStep, TensorSpec
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.callables import form_of

Y = {"y": {"dtype": "float64"}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PythonStep("a:f", Y, ("a",)),
            r"^\[PYTHON_STEP\] PythonStep: 'inputs' is .* text; got tuple of str\. Hint: inputs: ",
        ),
        (lambda: PythonStep("a:f", ["y"]), r"^\[PYTHON_STEP\] PythonStep: 'outputs' is a mapping .*; got list of str"),
        (lambda: PythonStep("a:f", {"y": "float32"}), r"^\[PYTHON_STEP\] .*got a mapping with str\. Hint: outputs: "),
        (lambda: PythonStep(3, Y), r"^\[PYTHON_STEP\] the function of a Python step is 'module:function'; got '3'"),
        (lambda: ModelStep(3), r"^\[MODEL_STEP\] ModelStep: 'uri' is text; got int"),
        (lambda: ModelStep("m.onnx", inputs=["x"]), r"^\[MODEL_STEP\] ModelStep: 'inputs'"),
        (lambda: ModelStep("m.onnx", outputs={"y": 3}), r"^\[MODEL_STEP\] ModelStep: 'outputs'"),
        (lambda: ImageStep(size=8), r"^\[IMAGE_STEP\] ImageStep: 'size' is 2 values or null; got int"),
        (lambda: ImageStep(size=(8,)), r"^\[IMAGE_STEP\] ImageStep: 'size' is 2 values or null; got tuple of int"),
        (
            lambda: ImageStep(size=(8, 8), mode="CMYK"),
            r"^\[IMAGE_STEP\] ImageStep: 'mode' is one of L, .*; got 'CMYK'",
        ),
        (lambda: ImageStep(size=(0, 8)), r"^\[IMAGE_STEP\] 'size', 'crop' and 'resize_shorter' are 1 pixel or more"),
        (lambda: ImageStep(crop=(8, 8), resize_shorter=0), r"^\[IMAGE_STEP\] 'size', 'crop' and 'resize_shorter'"),
        (lambda: FormatStep("x", top_k="3"), r"^\[FORMAT_STEP\] FormatStep: 'top_k' is a whole number; got str"),
        (lambda: FormatStep("x", labels=[1, 2]), r"^\[FORMAT_STEP\] FormatStep: 'labels' .* got list of int"),
        (lambda: Check(3, "out.y > 1"), r"^\[CHECK_NAME\] Check: 'name' is text; got int"),
        (
            lambda: TensorSpec("x", shape=3),
            r"^\[TENSOR_SHAPE\] tensor 'x': .* whole numbers; got int",
        ),
        (lambda: TensorSpec("x", shape=("a",)), r"^\[TENSOR_SHAPE\]"),
        (lambda: Pipeline.from_dict({}), r"^\[PIPELINE_STEP\] a pipeline has 'steps', a list"),
        (lambda: Pipeline.from_dict({"steps": 3}), r"^\[PIPELINE_STEP\]"),
        (lambda: Pipeline(ModelStep("m.onnx")), r"^\[PIPELINE_ARGUMENTS\] 'steps' .* got ModelStep"),
        (lambda: Pipeline(["m.onnx"]), r"^\[PIPELINE_ARGUMENTS\] 'steps' .* got str"),
        (lambda: Pipeline("m.onnx"), r"^\[PIPELINE_ARGUMENTS\] 'steps' .* got str"),
        (lambda: Pipeline([ModelStep("m.onnx")], outputs="y"), r"^\[PIPELINE_ARGUMENTS\] 'outputs' .* got str"),
        (lambda: Pipeline([ModelStep("m.onnx")], ["out.y > 1"]), r"^\[PIPELINE_ARGUMENTS\] 'checks' .* got str"),
    ],
)
def test_a_wrong_type_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_is_as_good_is_taken() -> None:
    assert ModelStep(Path("a/m.onnx")).uri == "a/m.onnx"
    assert ImageStep(size=[8, 8], mean=[0], crop=np.array([4, 4]).tolist()).size == [8, 8]
    assert TensorSpec("x", shape=[np.int64(3), None]).shape == (3, None)
    assert Pipeline([ModelStep("m.onnx")]).steps == (ModelStep("m.onnx"),)


def by_names(image: Any, factor: Any = 2) -> dict[str, Any]:
    return {"y": image * factor}


def one_more(image: Any, factor: Any, other: Any) -> dict[str, Any]:
    return {"y": image}


def of_a_dict(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"y": batch["image"]}


def of_anything(**inputs: Any) -> dict[str, Any]:
    return {"y": inputs["image"]}


@pytest.mark.parametrize(
    ("function", "inputs", "form"),
    [
        (by_names, ["image", "factor"], "names"),
        (by_names, ["image"], "names"),
        (of_anything, ["image", "factor"], "names"),
        (of_a_dict, ["batch"], "dict"),
        (lambda batch: batch, ["image"], "dict"),
        (lambda image: image, ["image"], "names"),
        (one_more, ["image", "factor", "other"], "names"),
        (np.negative, ["image"], "dict"),
    ],
)
def test_what_a_function_takes(function: Callable[..., Any], inputs: list[str], form: str) -> None:
    assert form_of(function, inputs) == form


def frame(data: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"y": data["image"] * data["factor"]})


def table(data: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return pa.table({"y": pc.multiply(data["image"], data["factor"])})


def named(image: Any, factor: Any) -> dict[str, Any]:
    return {"y": image * factor}


def whole(batch: dict[str, Any]) -> dict[str, Any]:
    return {"y": batch["image"] * batch["factor"]}


@pytest.mark.parametrize("function", [named, whole, frame, table])
def test_every_way_to_take_inputs_gives_the_same(function: Callable[..., Any]) -> None:
    step = PythonStep(function, Y, {"image": "x", "factor": "f"})
    assert Pipeline([step]).infer({"x": np.array([1.0, 2.0]), "f": np.array([3.0, 4.0])})["out.y"] == [3.0, 8.0]


def test_a_signature_that_does_not_fit_is_said_before_anything_runs() -> None:
    message = r"^\[PYTHON_STEP\] '.*one_more' takes \(image, factor, other\); its inputs: image, factor\."
    step = PythonStep("tests.unit.steps.test_arguments:one_more", Y, {"image": "x", "factor": "f"})
    with pytest.raises(ConfigError, match=message):
        Pipeline([step]).infer({"x": np.array([1.0]), "f": np.array([1.0])})
    with pytest.raises(ConfigError, match=r"^\[PYTHON_STEP\] '.*<lambda>' takes \(image, other\); its inputs: image\."):
        PythonStep(lambda image, other: {"y": image}, Y, {"image": "x"})


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1.0]}), pl.DataFrame({"a": [1.0]}), {1.0}, "ab", None])
def test_a_table_is_no_column(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^\[INFER_INPUT\] input 'image': expected a batch"):
        Pipeline([PythonStep(by_names, Y, {"image": "image"})]).infer({"image": value})


def test_a_dataset_is_text() -> None:
    pipeline = Pipeline([PythonStep(by_names, Y, {"image": "image"})])
    with pytest.raises(ConfigError, match=r"^\[DATASET_UNKNOWN\] a dataset is a text, or several; got int"):
        pipeline.infer({"image": np.array([1.0])}, dataset=3)
