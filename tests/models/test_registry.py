"""Models by URI, and a logged pipeline that any MLflow server can load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lakemill.cli.app import run
from lakemill.config.variables import expand
from lakemill.pipelines.pipeline import Pipeline
from lakemill.pipelines.registry import Finder, FoundModel, find, mlflow_at
from lakemill.pipelines.resolving import resolve, resolve_uri
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.content import content_sha256
from lakemill_udfs.steps.declared import Check, ModelStep, PythonStep
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import image_rows, onnx_classifier, png
from tests.models.conftest import Registry

IMAGES = pd.DataFrame({"content": image_rows(0, 6)["content"].to_pylist()})


def test_an_alias_is_a_version(registry: Registry) -> None:
    by_alias = find("models:/digits@production", registry.uri)
    assert registry.logged == "models:/digits/1"
    assert isinstance(by_alias, FoundModel)
    assert (by_alias.name, by_alias.version, by_alias.remote) == ("digits", "1", None)
    assert find("models:/digits/1", registry.uri) == by_alias
    assert content_sha256(by_alias.path) == content_sha256(find("models:/digits/1", registry.uri).path)


def test_an_alias_that_moves_meanwhile_is_one_version_for_all_of_a_pipeline(registry: Registry) -> None:
    for _ in range(2):
        registry.pipeline.log(name="moving", registered_model_name="moving", alias="now", registry=registry.uri)
    finder = Finder(registry.uri)
    assert finder.find("models:/moving@now").version == "2"
    with mlflow_at(registry.uri) as mlflow:
        mlflow.MlflowClient().set_registered_model_alias("moving", "now", "1")
    assert finder.find("models:/moving@now#model_1").version == "2"
    assert resolve_uri("models:/moving@now", registry.uri).models[0].version == "1", "the next run sees the new one"


def test_a_registered_pipeline_scores_a_file(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    image = registry.folder / "one.png"
    image.write_bytes(png(3))
    for uri in ("models:/digits@production", "models:/digits/1"):
        assert run(["infer", uri, str(image), "--registry", registry.uri, "--dataset", "out"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["out.label"] == registry.pipeline.infer(image)["out.label"]


def test_a_registrys_address_is_named_without_what_a_variable_stands_for(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE", registry.uri.removeprefix("sqlite:///"))
    with pytest.raises(ModelError) as caught:
        find("models:/digits/7", expand("sqlite:///${STORE}"))
    assert "in the registry 'sqlite:///${STORE}'" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/digits@staging", r"^\[MODEL_ALIAS_UNKNOWN\] model 'digits' has no alias 'staging' in the registry"),
        ("models:/digit@production", r"^\[MODEL_NOT_FOUND\] there is no model 'models:/digit@production' in"),
        ("models:/digits/7", r"^\[MODEL_NOT_FOUND\] there is no model 'models:/digits/7' in"),
        ("runs:/0123456789abcdef0123456789abcdef/model", r"^\[MODEL_NOT_FOUND\]"),
        ("nowhere", r"^\[MODEL_NOT_FOUND\] 'nowhere' is neither a file nor a folder that"),
    ],
)
def test_a_model_that_is_not_there(registry: Registry, uri: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_uri(uri, registry.uri)


def test_mlflows_own_settings_are_left_as_they_were(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)  # where MLflow makes these stores
    for own in (None, "sqlite:///own.db"):
        mlflow.set_tracking_uri(own)  # type: ignore[arg-type]  # None is MLflow's own setting
        mlflow.set_registry_uri(own)  # type: ignore[arg-type]  # as above
        monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        before = (
            mlflow.get_tracking_uri(),
            mlflow.get_registry_uri(),
            {k: v for k, v in os.environ.items() if "MLFLOW" in k},
        )
        for uri in (registry.uri, "sqlite:///another.db"):
            with mlflow_at(uri):
                assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (uri, uri)
        after = (
            mlflow.get_tracking_uri(),
            mlflow.get_registry_uri(),
            {k: v for k, v in os.environ.items() if "MLFLOW" in k},
        )
        assert after == before
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # as above
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]  # as above


def test_a_logged_pipeline_is_a_pipeline_again(registry: Registry) -> None:
    resolved = resolve_uri("models:/digits@production", registry.uri)
    assert resolved.name == "models:/digits@production"
    assert [type(step) for step in resolved.pipeline.steps] == [type(step) for step in registry.pipeline.steps]
    assert resolved.pipeline.checks == registry.pipeline.checks
    (model,) = resolved.models
    assert (model.name, model.version, model.flavor) == ("digits", "1", "onnx")
    assert model.sha256 == resolve(registry.pipeline).models[0].sha256


FRESH = """
import json, sys
import pandas as pd
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lakemill", "pyspark"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
sys.path[:] = [entry for entry in sys.path if not entry.endswith(("/src", "/udfs"))]
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
result = model.predict(pd.read_pickle(sys.argv[2]))
import lakemill_udfs
print(json.dumps([result.to_dict("list"), lakemill_udfs.__file__]))
"""


def test_a_server_without_lakemill_gives_the_same(registry: Registry, tmp_path: Path) -> None:
    path = find(registry.logged, registry.uri).path
    IMAGES.to_pickle(tmp_path / "images.pkl")
    run = subprocess.run(
        [sys.executable, "-c", FRESH, path, tmp_path / "images.pkl"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    result, module = json.loads(run.stdout.splitlines()[-1])
    assert Path(module).is_relative_to(path)
    expected = registry.pipeline.infer(IMAGES)
    assert result["out.label"] == expected["out.label"].tolist()
    np.testing.assert_allclose(result["out.probability"], expected["out.probability"], rtol=1e-6)


def test_a_pipeline_is_loaded_by_its_uri_and_by_any_models(registry: Registry) -> None:
    again = Pipeline.load("models:/digits@production", registry.uri)
    assert [type(step) for step in again.steps] == [type(step) for step in registry.pipeline.steps]
    expected = registry.pipeline.infer(IMAGES)["out.label"].tolist()
    assert again.infer(IMAGES, registry=registry.uri)["out.label"].tolist() == expected
    assert Pipeline.from_dict(again.to_dict()) == again
    assert Pipeline.load(str(registry.folder / "columns")).steps == (ModelStep(str(registry.folder / "columns")),)


def test_mlflows_scoring_server_serves_a_pipeline_with_an_example(registry: Registry) -> None:
    import base64

    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server

    uri = registry.pipeline.log(
        name="served", registered_model_name="served", registry=registry.uri, input_example=IMAGES.iloc[:1]
    )
    model = mlflow.pyfunc.load_model(str(find(uri, registry.uri).path))
    assert model.input_example is not None
    assert model.metadata.get_input_schema().input_names() == ["content"]
    records = [{"content": base64.b64encode(content).decode()} for content in IMAGES["content"]]
    answer = scoring_server.invocations(
        json.dumps({"dataframe_records": records}), "application/json", model, model.metadata.get_input_schema()
    )
    predictions = json.loads(answer.response)["predictions"]
    assert [row["out.label"] for row in predictions] == registry.pipeline.infer(IMAGES)["out.label"].tolist()


def test_a_served_pipeline_names_the_bad_row(registry: Registry) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(find(registry.logged, registry.uri).path))
    broken = pd.DataFrame({"content": image_rows(0, 3, broken=[1])["content"].to_pylist()})
    with pytest.raises(Exception, match=r"\[IMAGE_TRUNCATED\] row 1, decode:"):
        model.predict(broken)
    assert model.predict(IMAGES.iloc[:0]).columns.tolist() == ["out.label", "out.probability"]


def test_a_tensor_and_a_column_signature_are_fed_as_they_ask(registry: Registry) -> None:
    x = np.random.default_rng(1).random((5, 4))
    tensor = Pipeline((ModelStep(str(registry.folder / "tensors"), inputs={"input": "x"}),))
    assert resolve(tensor).models[0].inputs == (TensorSpec("input", "float64", (4,)),)
    by_tensor = tensor.infer({"x": x.astype("float32")})
    renamed = ModelStep(str(registry.folder / "columns"), outputs={"sign": "larger"})
    frame = Pipeline((renamed,), (Check("is", "out.larger"),)).infer(pd.DataFrame({"a": x[:, 0], "b": x[:, 1]}))
    assert by_tensor["out.output"] == frame["out.larger"].tolist()
    assert frame["anomaly.is"].tolist() == frame["out.larger"].tolist()


def test_any_model_is_a_pipeline_of_one_step(registry: Registry) -> None:
    resolved = resolve_uri(str(registry.folder / "columns"))
    assert [spec.name for spec in resolved.models[0].inputs] == ["a", "b"]
    assert resolved.models[0].outputs == (TensorSpec("sign", "bool"),)
    assert resolve(resolved.pipeline).pipeline.version == resolved.pipeline.version


def test_two_graphs_of_one_file_name_and_a_function_are_logged_apart(registry: Registry, tmp_path: Path) -> None:
    import mlflow.pyfunc

    for name, bias in (("a", 0.0), ("b", 5.0)):
        (tmp_path / name).mkdir()
        onnx_classifier(tmp_path / name / "model.onnx", bias=bias)
    pipeline = Pipeline(
        (
            PythonStep("tests.unit.features:double", {"y": {"dtype": "float32", "shape": [64]}}, {"x": "raw"}),
            ModelStep(str(tmp_path / "a" / "model.onnx"), inputs={"pixels": "y"}, outputs={"logits": "a"}),
            ModelStep(str(tmp_path / "b" / "model.onnx"), inputs={"pixels": "y"}, outputs={"logits": "b"}),
        )
    )
    data = {"raw": np.ones((2, 64), "float32")}
    expected = pipeline.infer(data)
    assert not np.allclose(expected["out.a"], expected["out.b"])
    uri = pipeline.log(name="two", registered_model_name="two", registry=registry.uri)
    again = resolve_uri(uri, registry.uri)
    assert [model.sha256 for model in again.models] == [model.sha256 for model in resolve(pipeline).models]
    frame = pd.DataFrame({"raw": list(data["raw"])})
    served = mlflow.pyfunc.load_model(str(find(uri, registry.uri).path)).predict(frame)
    np.testing.assert_allclose(np.stack(served["out.b"]), expected["out.b"], rtol=1e-6)
