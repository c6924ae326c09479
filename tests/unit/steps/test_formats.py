"""Scores to labels, thresholds, masks and boxes; pixels to files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lakemill_udfs.errors import ConfigError, ModelError, RowError
from lakemill_udfs.steps.declared import FormatStep
from lakemill_udfs.steps.formats import format_specs, run_format, softmax
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.spec import TensorSpec

SCORES = np.array([[1.0, 3.0, 2.0], [0.5, 0.5, 0.1]], "float32")


def test_the_best_classes_come_first_and_the_first_of_equals_wins() -> None:
    result = run_format(FormatStep("s", top_k=2, labels=("a", "b", "c")), {"input": SCORES})
    assert result["label"].tolist() == ["b", "a"]
    assert result["top_labels"].tolist() == [["b", "c"], ["a", "b"]]
    np.testing.assert_array_equal(result["top_probabilities"], np.array([[3, 2], [0.5, 0.5]], "float32"))


def test_without_labels_classes_are_numbered() -> None:
    result = run_format(FormatStep("s"), {"input": SCORES})
    assert result["label"].dtype == "int64"
    assert result["label"].tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_softmax_of_large_scores_sums_to_one(dtype: str) -> None:
    scores = np.array([[200, 201, 0], [0, 0, 0]]).astype(dtype)
    probabilities = softmax(scores)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities[0], [1 / (1 + np.e), np.e / (1 + np.e), 0], rtol=1e-5)


def test_scores_may_have_dimensions_of_one_and_no_rows() -> None:
    step = FormatStep("s", softmax=True)
    deep = run_format(step, {"input": SCORES.reshape(2, 3, 1, 1)})
    np.testing.assert_array_equal(deep["probability"], run_format(step, {"input": SCORES})["probability"])
    assert run_format(FormatStep("s"), {"input": SCORES[:0]})["label"].shape == (0,)


@pytest.mark.parametrize(
    ("step", "code"),
    [(FormatStep("s", labels=("a", "b")), "FORMAT_LABELS"), (FormatStep("s", top_k=4), "FORMAT_TOP_K")],
)
def test_what_does_not_fit_the_scores_is_the_models_fault(step: FormatStep, code: str) -> None:
    with pytest.raises(ModelError, match=rf"^\[{code}\] 's' has 3 classes|^\[{code}\] 'top_k' is 4"):
        run_format(step, {"input": SCORES})


@pytest.mark.parametrize("arguments", [{"top_k": 0}, {"outputs": {"labl": "x"}}])
def test_a_step_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\[FORMAT_STEP\]"):
        FormatStep("s", **arguments)


def formatted(step: FormatStep, specs: dict[str, TensorSpec], values: dict[str, Any]) -> dict[str, Any]:
    """Run a step and look at its results as SQL would: as the plain values of their columns."""
    result = run_format(step, values)
    return {spec.name: write_tensor(result[spec.name], spec).to_pylist() for spec in format_specs(step, specs)}


def test_one_score_above_a_threshold_is_a_boolean_or_one_of_two_labels() -> None:
    values, specs = {"input": np.array([0.4, 0.6], "float32")}, {"input": TensorSpec("s")}
    assert formatted(FormatStep("s", threshold=0.5), specs, values) == {"above": [False, True]}
    labelled = formatted(FormatStep("s", threshold=0.5, labels=("fine", "broken")), specs, values)
    assert labelled["label"] == ["fine", "broken"]


def test_each_class_above_a_threshold_gives_its_label() -> None:
    step, specs = FormatStep("s", threshold=0.4, labels=("a", "b", "c")), {"input": TensorSpec("s", shape=(3,))}
    values = {"input": np.array([[0.5, 0.1, 0.9], [0, 0, 0]], "float32")}
    assert formatted(step, specs, values) == {
        "above": [[True, False, True], [False, False, False]],
        "labels": [["a", "c"], []],
    }


def test_the_best_class_of_each_place_is_a_mask() -> None:
    scores = np.zeros((1, 3, 2, 2), "float32")
    scores[0, 2, 0, 1] = scores[0, 1, 1, 1] = 1
    step, specs = FormatStep("s", argmax=0), {"input": TensorSpec("s", shape=(3, 2, 2))}
    assert formatted(step, specs, {"input": scores}) == {"mask": [bytes([0, 2, 0, 1])]}


@pytest.mark.parametrize("labels", [None, ("cat", "dog", "bird")])
def test_boxes_are_as_many_as_each_row_has_best_first(labels: tuple[str, ...] | None) -> None:
    boxes = np.arange(24, dtype="float32").reshape(2, 3, 4)
    values = {"input": np.array([[0.6, 0.1, 0.9], [0, 0, 0.1]], "float32"), "boxes": boxes}
    values["classes"] = np.array([[0, 1, 2], [0, 0, 0]], "float32")
    specs = {"input": TensorSpec("s", shape=(3,)), "boxes": TensorSpec("b", shape=(3, 4))}
    specs["classes"] = TensorSpec("c", shape=(3,))
    step = FormatStep("s", boxes="b", classes="c", threshold=0.5, labels=labels)
    result = formatted(step, specs, values)
    assert result["boxes"] == [[[8, 9, 10, 11], [0, 1, 2, 3]], []]
    assert result["scores"] == [pytest.approx([0.9, 0.6]), []]
    names = result["labels" if labels else "classes"]
    assert names == ([["bird", "cat"], []] if labels else [[2, 0], []])


def test_boxes_with_a_score_for_each_class_take_the_best() -> None:
    scores = np.array([[[0.1, 0.7], [0.8, 0.2]]], "float32")
    specs = {"input": TensorSpec("s", shape=(None, 2)), "boxes": TensorSpec("b", shape=(None, 4))}
    result = formatted(FormatStep("s", boxes="b"), specs, {"input": scores, "boxes": np.zeros((1, 2, 4), "float32")})
    assert result["classes"] == [[0, 1]]


def test_a_box_of_a_class_without_a_label_is_its_rows_error() -> None:
    values = {"input": np.ones((1, 1)), "boxes": np.ones((1, 1, 4)), "classes": np.array([[7]])}
    with pytest.raises(RowError, match=r"^\[FORMAT_LABELS\]"):
        run_format(FormatStep("s", boxes="b", classes="c", labels=("a",)), values)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((4, 5), "uint8", "png"), ((4, 5), "bool", "png"), ((4, 5), "uint16", "png"), ((1, 4, 5), "uint16", "png"),
     ((4, 5, 3), "uint8", "png"), ((3, 4, 5), "uint8", "png"), ((4, 5, 4), "uint8", "png"),
     ((4, 5, 3), "uint8", "jpeg")],
)  # fmt: skip
def test_images_and_masks_are_files_that_others_read(shape: tuple[int, ...], dtype: str, kind: Any) -> None:
    image = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else np.iinfo(dtype).max, shape).astype(dtype)
    step = FormatStep("mask", encode=kind)
    (content,) = formatted(step, {"input": TensorSpec("mask", dtype, shape)}, {"input": image[np.newaxis]})["mask"]
    read = np.asarray(Image.open(io.BytesIO(content)))
    wanted = image[0] if shape[0] == 1 else np.moveaxis(image, 0, 2) if shape[0] == 3 else image
    assert read.shape == wanted.shape
    if kind == "png":
        np.testing.assert_array_equal(read, wanted)


@pytest.mark.parametrize(
    ("step", "spec", "said"),
    [
        (FormatStep("x", encode="jpeg"), TensorSpec("x", "uint16", (4, 4)), "jpeg needs"),
        (FormatStep("x", encode="png"), TensorSpec("x", "float32", (4, 4)), "png needs"),
        (FormatStep("x", argmax=2), TensorSpec("x", "float32", (4, 4)), "'argmax' is axis 2"),
        (FormatStep("x"), TensorSpec("x", "float32", (4, 4)), "one score a class"),
        (FormatStep("x", threshold=1), TensorSpec("x", "string"), "needs numbers"),
        (FormatStep("x", threshold=1, labels=("a",)), TensorSpec("x", "float32", (4, 4)), "one a class"),
        (FormatStep("x", boxes="b"), TensorSpec("x", "float32", (4,)), "boxes need shape"),
    ],
)
def test_a_tensor_that_a_step_cannot_format_is_refused_before_anything_runs(
    step: FormatStep, spec: TensorSpec, said: str
) -> None:
    with pytest.raises(ModelError, match=rf"^\[FORMAT_INPUT\] .*{said}"):
        format_specs(step, {"input": spec, "boxes": spec})


@pytest.mark.parametrize(
    "arguments", [{"encode": "png", "threshold": 1}, {"argmax": 0, "softmax": True}, {"classes": "c"}]
)
def test_ways_to_format_that_do_not_go_together_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\[FORMAT_STEP\]"):
        FormatStep("s", **arguments)
