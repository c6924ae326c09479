"""What feeds what is found by name, once, and what does not fit is said before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from lakemill_udfs.errors import LakemillError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import Wiring, wire

T = TensorSpec
IMAGE = ImageStep(mode="L", size=(2, 2), layout="flat", output="pixels")
TABLE = {"path": T("path", "string"), "content": "binary", "x": T("x", "float64"), "when": "timestamp[us, tz=UTC]"}


def model(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSpec:
    return ModelSpec(name, name, "onnx", name, None, "0" * 64, inputs, outputs)


A = model("a", (T("pixels", shape=(4,)),), (T("scores", shape=(3,)),))


def wired(steps: list[Step], models: list[ModelSpec] = [], table: dict[str, Any] = TABLE) -> Wiring:  # noqa: B006  # read only
    return wire(Pipeline(tuple(steps)), models, table)


def test_equal_names_are_connected() -> None:
    wiring = wired([IMAGE, ModelStep("a"), FormatStep("scores")], [A])
    assert wiring.steps[1].inputs == (("pixels", "pixels"),)
    assert wiring.raw_columns == ("content", "path")
    assert wiring.columns == ()
    assert wiring.outputs == (T("label", "int64"), T("probability"))


def test_both_sides_can_be_renamed_and_outputs_left_out() -> None:
    steps = [
        ImageStep(mode="L", size=(2, 2), layout="flat", output="digits"),
        ModelStep("a", inputs={"pixels": "digits"}, outputs={"scores": "logits"}),
        FormatStep("logits", top_k=2, outputs={"label": "best", "probability": None, "top_labels": None}),
    ]
    assert wired(steps, [A]).outputs == (T("best", "int64"), T("top_probabilities", shape=(2,)))


def test_the_only_value_feeds_the_only_input_whatever_its_name() -> None:
    steps = [ImageStep(mode="L", size=(2, 2), layout="flat", output="image"), ModelStep("a")]
    assert wired(steps, [A]).steps[1].inputs == (("pixels", "image"),)


def test_a_column_of_an_inputs_name_comes_before_an_unread_output() -> None:
    first, second = (model(name, (T("x"),), (T(name),)) for name in "ab")
    wiring = wired([ModelStep("a"), ModelStep("b")], [first, second])
    assert [step.inputs for step in wiring.steps] == [(("x", "x"),), (("x", "x"),)]
    assert [spec.name for spec in wiring.outputs] == ["a", "b"]


def test_two_steps_that_read_one_column_each_get_their_dtype() -> None:
    narrow, wide = model("a", (T("x"),), (T("a"),)), model("b", (T("x", "float64"),), (T("b"),))
    function = PythonStep("m:f", {"y": {}}, {"x": "x"})
    wiring = wired([ModelStep("a"), ModelStep("b"), function], [narrow, wide])
    assert [column.spec.dtype for column in wiring.columns] == ["float32"]
    assert [step.casts for step in wiring.steps] == [{}, {"x": "float64"}, {}]


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3), (1,), (None,)])
def test_scores_have_one_dimension_that_is_not_one(shape: tuple[int | None, ...]) -> None:
    scores = model("a", A.inputs, (T("scores", shape=shape),))
    assert len(wired([IMAGE, ModelStep("a"), FormatStep("scores")], [scores]).outputs) == 2


@pytest.mark.parametrize(
    ("steps", "models", "message"),
    [
        (
            [ModelStep("b")],
            [model("b", (T("z"),), (T("y"),))],
            "[MODEL_INPUT_MISSING] model 'b' needs input 'z'; the table has: path, content, x, when. "
            "Hint: name what feeds it: inputs: {z: <column or output>}",
        ),
        (
            [IMAGE, ModelStep("b")],
            [model("b", (T("z"), T("pixels", shape=(4,))), (T("y"),))],
            "[MODEL_INPUT_MISSING] model 'b' needs input 'z'; the table has: path, content, x, when; "
            "earlier steps make: pixels.",
        ),
        ([IMAGE, ModelStep("a", inputs={"pixel": "x"})], [A], "[MODEL_INPUT_UNKNOWN] model 'a' has no input 'pixel'"),
        ([ModelStep("b")], [model("b", (), (T("y"),))], "[MODEL_INPUT_MISSING] model 'b' does not say its inputs"),
        (
            [IMAGE, ModelStep("b")],
            [model("b", (T("pixels", shape=(5,)),), (T("y"),))],
            "[MODEL_INPUT_MISMATCH] model 'b' needs pixels float32[5]; 'pixels' is pixels float32[4].",
        ),
        (
            [IMAGE, ModelStep("b")],
            [model("b", (T("pixels", "uint8", (4,)),), (T("y"),))],
            "[MODEL_INPUT_MISMATCH] model 'b' needs pixels uint8[4]; 'pixels' is pixels float32[4], "
            "which does not convert safely.",
        ),
        ([IMAGE, ModelStep("b")], [model("b", A.inputs, ())], "[MODEL_OUTPUT_UNKNOWN] model 'b' does not say"),
        (
            [IMAGE, ModelStep("a", outputs={"score": "y"})],
            [A],
            "[MODEL_OUTPUT_UNKNOWN] model 'a' has no output 'score'; it has: scores.",
        ),
        ([IMAGE, IMAGE], [], "[OUTPUT_NAME] the image step makes 'pixels', which an earlier step made"),
        ([ImageStep(column="photo", size=(2, 2))], [], "[COLUMN_MISSING] the image step reads column 'photo'"),
        ([ImageStep(column="x", size=(2, 2))], [], "[COLUMN_TYPE] the image step needs 'x' as binary"),
        (
            [PythonStep("m:f", {"y": {}}, {"t": "when"})],
            [],
            "[COLUMN_TYPE] function 'm:f' needs 'when' as a tensor; the column holds timestamp[us, tz=UTC]. "
            "Hint: give dates as strings, or as numbers.",
        ),
        ([ModelStep("b")], [model("b", (T("path"),), (T("y"),))], "[COLUMN_TYPE] model 'b' needs 'path' as float32"),
        ([FormatStep("x")], [], "[FORMAT_INPUT] the format step needs one score a class, shape (classes,); got x"),
    ],
)
def test_what_does_not_fit_is_said(steps: list[Step], models: list[ModelSpec], message: str) -> None:
    with pytest.raises(LakemillError) as caught:
        wired(steps, models)
    assert str(caught.value).startswith(message)


def test_all_problems_are_found_at_once() -> None:
    steps = (
        FormatStep("nowhere"),
        ModelStep("lost.onnx"),
        FormatStep("of_the_lost_model"),
        PythonStep("m:f", {"y": {"dtype": "float32"}}, {"x": "when"}),
    )
    problems: list[LakemillError] = []
    wire(Pipeline(steps), [None], {"when": None, "n": TensorSpec("n")}, problems)
    assert [problem.code for problem in problems] == ["MODEL_INPUT_MISSING", "COLUMN_TYPE"]
