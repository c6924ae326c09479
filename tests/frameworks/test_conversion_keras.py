"""Keras models as ONNX graphs, with a certificate, from a file or from memory; a SavedModel's signatures by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import lakemill
from lakemill import LakemillError, ModelStep, Pipeline

RNG = np.random.default_rng(0)
A, B = RNG.random((6, 4), dtype="float32"), RNG.random((6, 2), dtype="float32")


def one() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), name="a"), keras.layers.Dense(3)])


def two() -> Any:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], [keras.layers.Dense(3, name="x")(a), keras.layers.Dense(1, name="y")(b)])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.mark.parametrize("form", ["file", "memory"])
def test_a_model_becomes_a_graph_that_gives_the_same(registry: str, tmp_path: Path, form: str) -> None:
    one().save(tmp_path / "one.keras")
    model = one() if form == "memory" else tmp_path / "one.keras"
    found = lakemill.log_model(model, name=f"one-{form}", convert="onnx", input_example={"a": A}, registry=registry)
    assert (found.runtime, found.certificate["by"]) == ("onnx", "tf2onnx")
    result = Pipeline((ModelStep(found.uri),)).infer({"a": A[:5]}, registry=registry, dataset="out")
    np.testing.assert_allclose(result["out.output"], one().predict(A, verbose=0)[:5], atol=1e-5)


def test_several_inputs_and_outputs_keep_their_names(registry: str) -> None:
    data = {"a": A, "b": B}
    found = lakemill.log_model(two(), name="two", convert="onnx", input_example=data, registry=registry)
    result = Pipeline((ModelStep(found.uri),)).infer(data, registry=registry, dataset="out")
    for name, expected in zip("xy", two().predict([A, B], verbose=0), strict=True):
        np.testing.assert_allclose(result[f"out.{name}"], expected, atol=1e-5)


def test_a_model_in_memory_runs_on_keras(registry: str) -> None:
    found = lakemill.log_model(one(), name="memory", registry=registry)
    assert found.runtime == "keras"
    result = Pipeline((ModelStep(found.uri),)).infer({"a": A}, registry=registry, dataset="out")
    np.testing.assert_allclose(result["out.output"], one().predict(A, verbose=0), atol=1e-6)


class Graph(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="a")])
    def double(self, a: Any) -> dict[str, Any]:
        return {"double": a * 2}

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="b")])
    def half(self, b: Any) -> dict[str, Any]:
        return {"half": b / 2}


def test_a_signature_is_chosen_by_name(tmp_path: Path) -> None:
    graph = Graph()
    tf.saved_model.save(graph, tmp_path / "graph", signatures={"twice": graph.double, "halved": graph.half})
    for name, data, expected in (("twice", {"a": A}, A * 2), ("halved", {"b": B}, B / 2)):
        step = ModelStep(tmp_path / "graph", options={"signature": name}, trust=True)
        (result,) = Pipeline((step,)).infer(data, dataset="out").values()
        np.testing.assert_array_equal(result, expected)
    step = ModelStep(tmp_path / "graph", options={"signature": "other"}, trust=True)
    with pytest.raises(LakemillError, match=r"^\[MODEL_SIGNATURE\] .* no signature 'other'; it has: .*twice"):
        Pipeline((step,)).infer({"a": A})
