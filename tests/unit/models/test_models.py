"""Models run the same through ONNX Runtime and pyfunc, load once, and say why they do not load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lakemill.pipelines.resolving import resolve
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.cache import CACHED_MODELS, ModelCache
from lakemill_udfs.models.content import content_sha256
from lakemill_udfs.models.files import locate
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.onnx_runtime import OnnxModel
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import onnx_classifier

PIXELS = np.random.default_rng(0).random((5, 64), dtype=np.float32)


def spec_of(path: Path, **step: object) -> ModelSpec:
    return resolve(Pipeline((ModelStep(str(path), **step),))).models[0]  # type: ignore[arg-type]  # a test's shorthand


def fixed(path: Path, rows: int) -> Path:
    """Give a graph's batch dimension a fixed size."""
    import onnx

    graph = onnx.load(path)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = rows
    target = path.with_name(f"fixed-{rows}.onnx")
    onnx.save(graph, target)
    return target


def test_a_graph_says_its_inputs_and_outputs(tmp_path: Path) -> None:
    path = onnx_classifier(tmp_path / "model.onnx")
    spec = spec_of(path)
    assert spec.inputs == (TensorSpec("pixels", "float32", (64,)),)
    assert spec.outputs == (TensorSpec("logits", "float32", (3,)),)
    assert (spec.name, spec.version, spec.flavor) == ("model", None, "onnx")
    assert spec.sha256 == content_sha256(path)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_a_fixed_batch_is_cut_and_padded(tmp_path: Path, rows: int) -> None:
    path = onnx_classifier(tmp_path / "model.onnx")
    expected = OnnxModel(path, threads=1).predict({"pixels": PIXELS})["logits"]
    got = OnnxModel(fixed(path, rows), threads=1).predict({"pixels": PIXELS})["logits"]
    assert got.shape == (5, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rows_that_differ_in_an_input_without_rows_are_given_to_the_graph_apart(tmp_path: Path) -> None:
    """ONNX Runtime takes a vector for a scalar: with as many values as features it scales the wrong axis."""
    import onnx

    number = onnx.TensorProto.FLOAT
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "scale"], ["y"])],
        "scaled",
        [value("x", number, ["n", 4]), value("scale", number, [])],
        [value("y", number, ["n", 4])],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(tmp_path / "scaled.onnx"))
    model = OnnxModel(tmp_path / "scaled.onnx")
    scale = np.array([1, 2, 1, 3], "float32")
    result = model.predict({"x": np.ones((4, 4), "float32"), "scale": scale})
    np.testing.assert_array_equal(result["y"], np.repeat(scale[:, np.newaxis], 4, axis=1))


def test_a_model_is_loaded_once_by_content_and_options(tmp_path: Path) -> None:
    cache = ModelCache()
    spec = spec_of(onnx_classifier(tmp_path / "model.onnx"))
    first, fresh = cache.get(spec, threads=1, device="auto")
    assert fresh
    assert first.model_bytes == (tmp_path / "model.onnx").stat().st_size
    assert cache.get(replace(spec, uri="models:/other@alias"), threads=1, device="auto") == (first, False)
    assert cache.get(spec, threads=2, device="auto")[1]
    for number in range(CACHED_MODELS):
        cache.get(spec_of(onnx_classifier(tmp_path / f"{number}.onnx", bias=number + 1)), threads=1, device="auto")
    assert len(cache.entries) == CACHED_MODELS
    assert cache.get(spec, threads=1, device="auto")[1]


def test_a_model_at_a_uri_is_fetched_as_a_file_or_a_folder(tmp_path: Path) -> None:
    path = onnx_classifier(tmp_path / "model.onnx")
    remote = replace(spec_of(path), location=path.as_uri())
    assert locate(remote).path.read_bytes() == path.read_bytes()
    folder = locate(replace(remote, location=tmp_path.as_uri(), sha256=content_sha256(tmp_path)))
    assert (folder.path / "model.onnx").is_file()


def test_why_a_model_is_not_there(tmp_path: Path) -> None:
    spec = spec_of(onnx_classifier(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_FOUND\] the files of model 'model'"):
        locate(replace(spec, location=str(tmp_path / "gone.onnx")))
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_SHIPPED\]"):
        locate(replace(spec, location="archive.zip/model.onnx", shipped=True))
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_FOUND\] '.*gone.onnx' is neither"):
        spec_of(tmp_path / "gone.onnx")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\]"):
        spec_of(path)
    spec = ModelSpec(str(path), str(path), "onnx", "model", None, content_sha256(path))
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] model 'model'"):
        ModelCache().get(spec, threads=1, device="auto")


def test_a_model_that_is_not_the_one_agreed_on(tmp_path: Path) -> None:
    path = onnx_classifier(tmp_path / "model.onnx")
    assert spec_of(path, sha256=content_sha256(path)).name == "model"
    agreed = content_sha256(path)
    onnx_classifier(path, bias=1)
    with pytest.raises(ModelError, match=rf"^\[MODEL_CHANGED\] .*expected sha256 {agreed[:12]}"):
        spec_of(path, sha256=agreed)


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has CUDA")
    with pytest.raises(ModelError, match=r"^\[DEVICE_MISSING\]"):
        OnnxModel(onnx_classifier(tmp_path / "model.onnx"), device="cuda")
