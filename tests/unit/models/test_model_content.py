"""What a model's sha256 covers is what runs, and a worker runs what the plan named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lakemill.pipelines.registry import mlmodel
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.errors import ModelError, SetupError
from lakemill_udfs.models import files
from lakemill_udfs.models.cache import ModelCache
from lakemill_udfs.models.content import content_files, content_sha256
from lakemill_udfs.models.files import locate
from lakemill_udfs.models.model import ModelFiles, ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep


def times(path: Path, factor: float, *, external: str | None = None, **options: object) -> Path:
    """Save a graph that multiplies ``x`` by a factor; with ``external`` the factor stands in a file of that name."""
    options = {"operator": "Mul", "domain": "", "opset": 17, "ir": 8} | options
    values = numpy_helper.from_array(np.full(300, factor, "float32"), "k")
    imports = [helper.make_opsetid("", options["opset"])]
    if options["domain"]:
        imports.append(helper.make_opsetid(options["domain"], 1))
    graph = helper.make_graph(
        [helper.make_node(options["operator"], ["x", "k"], ["y"], domain=options["domain"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 300])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 300])],
        [values],
    )
    model = helper.make_model(graph, opset_imports=imports, ir_version=options["ir"])
    outside = {"save_as_external_data": True, "location": external, "size_threshold": 0} if external else {}
    onnx.save(model, path, **outside)
    return path


def spec_of(path: Path) -> ModelSpec:
    return resolve(Pipeline((ModelStep(path),))).models[0]


def test_external_weights_are_part_of_the_model(tmp_path: Path) -> None:
    spec = spec_of(times(tmp_path / "model.onnx", 2, external="weights.bin"))
    assert spec.beside == ("weights.bin",)
    (tmp_path / "weights.bin").unlink()
    other = spec_of(times(tmp_path / "model.onnx", 3, external="weights.bin"))
    assert other.sha256 != spec.sha256
    with pytest.raises(ModelError, match=r"^\[MODEL_CHANGED\]"):
        ModelCache().get(spec, threads=1, device="cpu")
    model = ModelCache().get(other, threads=1, device="cpu")[0].model
    assert model.predict({"x": np.ones((1, 300), "float32")})["y"][0, 0] == 3


def test_external_weights_are_fetched_from_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(times(tmp_path / "model.onnx", 2, external="weights.bin"))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    remote = replace(spec, location=(tmp_path / "model.onnx").as_uri())
    found = locate(remote)
    assert sorted(file.name for file in found.path.parent.iterdir()) == ["model.onnx", "weights.bin"]
    (tmp_path / "weights.bin").unlink()
    assert locate(remote) == found, "the copy serves all processes of this user"
    found.path.parents[1].chmod(0o777)
    with pytest.raises(SetupError, match=r"^\[CACHE_NOT_OURS\]"):
        locate(remote)


def test_weights_outside_the_graphs_folder_are_refused(tmp_path: Path) -> None:
    path = times(tmp_path / "model.onnx", 2, external="weights.bin")
    graph = onnx.load(path, load_external_data=False)
    graph.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"^\[MODEL_PATH\]"):
        spec_of(path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = times(tmp_path / "model.onnx", 2, external="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] the weights file 'weights.bin' of model 'model.onnx'"):
        spec_of(path)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"ir": 99}, r"IR version 99, this ONNX Runtime reads up to \d+"),
        ({"opset": 99}, r"opset 99, this ONNX Runtime knows up to \d+"),
        ({"operator": "Nope", "domain": "com.me"}, "needs the operator com.me:Nope"),
        ({"operator": "Nope"}, "needs the operator Nope"),
    ],
)
def test_why_a_graph_does_not_load(tmp_path: Path, options: dict[str, object], cause: str) -> None:
    with pytest.raises(ModelError, match=rf"^\[MODEL_LOAD\] model 'model' does not load \(onnx\): \w+: .*{cause}"):
        spec_of(times(tmp_path / "model.onnx", 2, **options))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"no graph", "no ONNX file, or a damaged one"),
    ],
)
def test_what_stands_for_a_model_and_is_none(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^\[MODEL_LOAD\] .*{cause}"):
        spec_of(tmp_path / "model.onnx")


def test_a_model_that_is_replaced_after_the_plan_is_not_run(tmp_path: Path) -> None:
    spec = spec_of(times(tmp_path / "model.onnx", 2))
    times(tmp_path / "model.onnx", 1000)
    with pytest.raises(ModelError, match=rf"^\[MODEL_CHANGED\] .* expected sha256 {spec.sha256[:12]}"):
        ModelCache().get(spec, threads=1, device="cpu")


def folder(path: Path) -> Path:
    """Make a model's folder with a module of its own."""
    (path / "code").mkdir(parents=True)
    (path / "MLmodel").write_text("flavors: {python_function: {loader_module: mine, code: code}}\n")
    (path / "code" / "mine.py").write_text("VALUE = 1\n")
    return path


def test_bytecode_is_neither_hashed_nor_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "model")
    sha256 = content_sha256(path)
    cache = path / "code" / "__pycache__"
    cache.mkdir()
    (cache / f"mine.{sys.implementation.cache_tag}.pyc").write_bytes(b"planted")
    (path / "registered_model_meta").write_text("a note of MLflow's")
    assert content_sha256(path) == sha256
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    found = locate(ModelSpec(str(path), str(path), "pyfunc", "model", None, sha256))
    assert found.path != path
    assert [name for name, _ in content_files(found)] == ["MLmodel", "code/mine.py"]
    assert not list(found.path.rglob("__pycache__"))


@pytest.mark.parametrize("name", ["mine.py", "mine.pyc", "data.bin"])
def test_what_hides_among_bytecode_is_refused(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path / "model")
    (path / "code" / "__pycache__").mkdir()
    (path / "code" / "__pycache__" / name).touch()
    with pytest.raises(ModelError, match=rf"^\[MODEL_FILE\] 'code/__pycache__/{name}'"):
        content_sha256(path)


def test_a_folder_called_as_what_is_left_out_is_hashed(tmp_path: Path) -> None:
    path = folder(tmp_path / "__pycache__" / "model")
    before = content_sha256(path)
    (path / "code" / "registered_model_meta").write_text("code may read this")
    assert content_sha256(path) != before


@pytest.mark.parametrize("target", ["folder", "file"])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    path, outside = folder(tmp_path / "model"), tmp_path / "outside"
    outside.mkdir()
    (outside / "file.py").touch()
    (path / "code" / "more").symlink_to(outside if target == "folder" else outside / "file.py")
    with pytest.raises(ModelError, match=r"^\[MODEL_LINK\] 'code/more'"):
        content_sha256(path)


def test_a_link_within_the_folder_counts_by_its_content(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    (path / "same.py").symlink_to(path / "code" / "mine.py")
    before = content_sha256(path)
    (path / "code" / "mine.py").write_text("VALUE = 2\n")
    assert content_sha256(path) != before
    assert len(content_files(ModelFiles(path))) == 3


@pytest.mark.parametrize(
    "flavors",
    [
        "{onnx: {data: ../outside.onnx}}",
        "{onnx: {data: /etc/hostname}}",
        "{python_function: {artifacts: {model_0: {path: ../outside}}}}",
        "{python_function: {code: 'C:\\outside'}}",
        "{python_function: {data: 'file:///etc/hostname'}}",
    ],
)
def test_a_path_that_leaves_the_models_folder_is_refused(tmp_path: Path, flavors: str) -> None:
    (tmp_path / "MLmodel").write_text(f"flavors: {flavors}\n")
    with pytest.raises(ModelError, match=r"^\[MODEL_PATH\]"):
        mlmodel(tmp_path)
    with pytest.raises(ModelError, match=r"^\[MODEL_PATH\]"):
        spec_of(tmp_path)
