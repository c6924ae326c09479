"""Keras and TensorFlow in each form of input, in this process, Delta to Delta and on Spark: as called directly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lakemill import ModelStep
from tests.frameworks.forms import FORMS, X, from_delta_to_delta, in_process, on_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])


@pytest.fixture(scope="module", params=["keras", "h5", "saved model"])
def step(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelStep:
    folder = tmp_path_factory.mktemp("model")
    if request.param == "saved model":
        one = network()
        signature = [tf.TensorSpec((None, 4), tf.float32, name="x")]
        served = tf.function(lambda x: {"output": one(x)}, input_signature=signature)
        tf.saved_model.save(one, folder / "graph", signatures={"serving_default": served})
        return ModelStep(folder / "graph", trust=True)
    path = folder / f"net.{request.param}"
    network().save(path)
    return ModelStep(path, trust=request.param == "h5")


def expected() -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = network().predict(X, verbose=0)
    return result


@pytest.mark.parametrize("form", FORMS)
def test_in_process(step: ModelStep, form: str) -> None:
    np.testing.assert_allclose(in_process(step, form), expected(), rtol=1e-5)


def test_from_delta_to_delta(step: ModelStep, tmp_path: Path) -> None:
    np.testing.assert_allclose(from_delta_to_delta(step, "output", tmp_path), expected(), rtol=1e-5)


def test_on_spark(spark: SparkSession, step: ModelStep, tmp_path: Path) -> None:
    for form, found in on_spark(spark, step, "output", tmp_path).items():
        np.testing.assert_allclose(found, expected(), rtol=1e-5, err_msg=form)
