"""Class scores to labels and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.formats import format_scores, softmax
from lakemill_udfs.steps import FormatStep

SCORES = np.array([[1.0, 3.0, 2.0], [0.5, 0.5, 0.1]], "float32")


def test_the_best_classes_come_first_and_the_first_of_equals_wins() -> None:
    result = format_scores(FormatStep("s", top_k=2, labels=("a", "b", "c")), SCORES)
    assert result["label"].tolist() == ["b", "a"]
    assert result["top_labels"].tolist() == [["b", "c"], ["a", "b"]]
    np.testing.assert_array_equal(result["top_probabilities"], np.array([[3, 2], [0.5, 0.5]], "float32"))


def test_without_labels_classes_are_numbered() -> None:
    result = format_scores(FormatStep("s"), SCORES)
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
    deep = format_scores(step, SCORES.reshape(2, 3, 1, 1))
    np.testing.assert_array_equal(deep["probability"], format_scores(step, SCORES)["probability"])
    assert format_scores(FormatStep("s"), SCORES[:0])["label"].shape == (0,)


@pytest.mark.parametrize(
    ("step", "code"),
    [(FormatStep("s", labels=("a", "b")), "FORMAT_LABELS"), (FormatStep("s", top_k=4), "FORMAT_TOP_K")],
)
def test_what_does_not_fit_the_scores_is_the_models_fault(step: FormatStep, code: str) -> None:
    with pytest.raises(ModelError, match=rf"^\[{code}\] 's' has 3 classes|^\[{code}\] 'top_k' is 4"):
        format_scores(step, SCORES)


@pytest.mark.parametrize("arguments", [{"top_k": 0}, {"outputs": {"labl": "x"}}])
def test_a_step_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\[FORMAT_STEP\]"):
        FormatStep("s", **arguments)
