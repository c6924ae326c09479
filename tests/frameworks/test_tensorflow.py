"""Keras and TensorFlow models give here what they give by themselves: files, folders, zips, MLflow's flavours."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lakemill import ModelStep, Pipeline
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.tensorflow_runtime import device_of

RNG = np.random.default_rng(0)
A, B = RNG.random((5, 4), dtype="float32"), RNG.random((5, 2), dtype="float32")


def one() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), name="a"), keras.layers.Dense(3)])


def two() -> Any:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], [keras.layers.Dense(3, name="x")(a), keras.layers.Dense(1, name="y")(b)])


class Graph(tf.Module):
    """Numbers and text in and out."""

    @tf.function(
        input_signature=[tf.TensorSpec((None, 4), tf.float32, name="a"), tf.TensorSpec((None,), tf.string, name="s")]
    )
    def __call__(self, a: Any, s: Any) -> dict[str, Any]:
        return {"double": a * 2, "text": tf.strings.join([s, s])}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_says_its_layers(tmp_path: Path, suffix: str) -> None:
    one().save(tmp_path / f"one{suffix}")
    got = Pipeline((ModelStep(tmp_path / f"one{suffix}", trust=suffix == ".h5"),)).infer({"a": A})
    np.testing.assert_allclose(got["out.output"], one().predict(A, verbose=0), rtol=1e-6)


def test_inputs_and_outputs_of_a_keras_model_go_by_name(tmp_path: Path) -> None:
    two().save(tmp_path / "two.keras")
    got = Pipeline((ModelStep(tmp_path / "two.keras"),)).infer({"b": B, "a": A})
    x, y = two().predict([A, B], verbose=0)
    np.testing.assert_allclose(got["out.x"], x, rtol=1e-6)
    np.testing.assert_allclose(got["out.y"], y, rtol=1e-6)


@pytest.mark.parametrize("form", ["tensorflow", "keras"])
def test_an_mlflow_model_runs_on_keras_itself(tmp_path: Path, form: str) -> None:
    import mlflow
    from mlflow.models import infer_signature

    expected = one().predict(A, verbose=0)
    options = {"signature": infer_signature(A, expected), "pip_requirements": ["tensorflow"]}
    getattr(mlflow, form).save_model(one(), str(tmp_path / "m"), **options)
    got = Pipeline((ModelStep(tmp_path / "m"),)).infer({"input": A})
    np.testing.assert_allclose(got["out.output"], expected, rtol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_a_saved_model_is_its_signature(tmp_path: Path, packed: bool) -> None:
    graph = Graph()
    tf.saved_model.save(graph, str(tmp_path / "m"), signatures={"serving_default": graph.__call__})
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "m")) if packed else tmp_path / "m"
    got = Pipeline((ModelStep(path, trust=True),)).infer({"a": A, "s": ["x", "yé", "", "z", "w"]})
    np.testing.assert_allclose(got["out.double"], 2 * A, rtol=1e-6)
    assert list(got["out.text"]) == ["xx", "yéyé", "", "zz", "ww"]


def test_an_hdf5_file_is_code(tmp_path: Path) -> None:
    one().save(tmp_path / "one.h5")
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        Pipeline((ModelStep(tmp_path / "one.h5"),)).infer({"a": A})


def test_a_saved_model_is_code(tmp_path: Path) -> None:
    """Its graph may write files, wherever the worker may."""
    graph = Graph()
    tf.saved_model.save(graph, str(tmp_path / "m"), signatures={"serving_default": graph.__call__})
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        Pipeline((ModelStep(tmp_path / "m"),)).infer({"a": A, "s": list("abcde")})


def test_an_mlflow_module_is_a_saved_model(tmp_path: Path) -> None:
    import mlflow.tensorflow

    graph = Graph()
    mlflow.tensorflow.save_model(graph, tmp_path / "m", pip_requirements=["tensorflow"], saved_model_kwargs={
        "signatures": {"serving_default": graph.__call__}
    })  # fmt: skip
    got = Pipeline((ModelStep(tmp_path / "m"),)).infer({"a": A, "s": list("abcde")})
    np.testing.assert_allclose(got["out.double"], 2 * A, rtol=1e-6)


def test_what_is_wrong_with_a_graph_is_said(tmp_path: Path) -> None:
    graph = Graph()
    names = dict.fromkeys(("one", "two"), graph.__call__)
    tf.saved_model.save(graph, str(tmp_path / "several"), signatures=names)
    with pytest.raises(ModelError, match=r"^\[MODEL_SIGNATURE\] .*'serving_default'; it has: one, two"):
        Pipeline((ModelStep(tmp_path / "several", trust=True),)).infer({"a": A, "s": list("abcde")})
    two().export(str(tmp_path / "torn"), verbose=False)
    (tmp_path / "torn" / "variables" / "variables.index").unlink()
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] .*its weights \(variables/\) are missing or damaged"):
        Pipeline((ModelStep(tmp_path / "torn", trust=True),)).infer({"a": A, "b": B})


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("saved_model.pb", b"")
        archive.writestr("../outside.txt", b"x")
    with pytest.raises(ModelError, match=r"^\[MODEL_PATH\] the archive 'bad.zip' holds an entry that leads out"):
        Pipeline((ModelStep(tmp_path / "bad.zip", trust=True),)).infer({"a": A})
    assert not (tmp_path / "outside.txt").exists()


def test_a_layer_that_is_code_is_not_run(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "code.keras")
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] model 'code' does not load \(keras\): .*a Lambda layer"):
        Pipeline((ModelStep(tmp_path / "code.keras"),)).infer({"x": A})


def test_a_card_that_is_not_there_is_an_error_and_never_a_run_on_the_cpu() -> None:
    with pytest.raises(ModelError, match=r"^\[DEVICE_MISSING\] engine.device is cuda:1, but TensorFlow sees 0 GPUs"):
        device_of("cuda:1")
    assert device_of("auto") == device_of("cpu") == "/CPU:0"
