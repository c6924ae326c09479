"""``log_model``: one call from a file or an object to a registered MLflow model that was looked at and run once."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import lakemill
from lakemill.cli.app import run
from lakemill.pipelines import converting
from lakemill.pipelines.pipeline import Pipeline
from lakemill.pipelines.registry import find, mlflow_at
from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import onnx_classifier

X = np.random.default_rng(0).random((200, 4))
FRAME = pd.DataFrame(X, columns=list("abcd"))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    with mlflow_at(uri) as mlflow:
        mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
    yield uri
    mlflow.tracking.fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def served(uri: str, registry: str, data: Any) -> Any:
    """Return what plain MLflow gives."""
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(find(uri, registry).path)).predict(data)


@pytest.mark.parametrize("framework", ["sklearn", "xgboost", "onnx"])
@pytest.mark.parametrize("form", ["object", "file"])
def test_a_registered_model_is_the_same_here_in_plain_mlflow_and_called_directly(
    registry: str, tmp_path: Path, framework: str, form: str
) -> None:
    if framework == "onnx":
        import onnx
        import onnxruntime

        path: Path = onnx_classifier(tmp_path / "model.onnx")
        given: Any = {"pixels": np.random.default_rng(0).random((5, 64), dtype="float32")}
        direct = onnxruntime.InferenceSession(path).run(None, given)[0]
        model: Any = onnx.load(path)
    elif framework == "sklearn":
        model, given, path = LogisticRegression().fit(FRAME, Y), FRAME, tmp_path / "model.pkl"
        direct = model.predict(FRAME)
        path.write_bytes(pickle.dumps(model))
    else:
        model, given, path = xgboost.XGBClassifier(n_estimators=4).fit(FRAME, Y), FRAME, tmp_path / "model.ubj"
        direct = model.predict(FRAME)
        model.save_model(path)
    logged = lakemill.log_model(
        model if form == "object" else path,
        name=f"{framework}-{form}",
        alias="production",
        registry=registry,
        trust=True,
    )
    assert (logged.runtime, logged.uri, logged.version) == (framework, f"models:/{framework}-{form}/1", "1")
    result = lakemill.Pipeline((ModelStep(f"models:/{framework}-{form}@production"),)).infer(
        given, registry=registry, dataset="out"
    )
    ours = np.array(next(iter(result.values())) if isinstance(result, dict) else result.iloc[:, 0])
    np.testing.assert_allclose(ours, direct, rtol=1e-6)
    theirs = served(logged.uri, registry, given)
    np.testing.assert_allclose(next(iter(theirs.values())) if isinstance(theirs, dict) else theirs, direct, rtol=1e-6)
    with mlflow_at(registry) as mlflow:
        version = mlflow.MlflowClient().get_model_version(f"{framework}-{form}", "1")
    assert version.tags["lakemill.sha256"] == logged.sha256


def test_a_method_is_logged_with_the_model(registry: str) -> None:
    model = LogisticRegression().fit(X, Y)
    logged = lakemill.log_model(model, name="method", options={"method": "predict_proba"}, registry=registry)
    assert (logged.inputs, logged.outputs) == (("inputs float64[4]",), ("probabilities float64[2]",))
    result = Pipeline((ModelStep(logged.uri),)).infer({"inputs": X}, registry=registry)
    np.testing.assert_array_equal(result["out.probabilities"], model.predict_proba(X))
    np.testing.assert_array_equal(served(logged.uri, registry, X), model.predict_proba(X))
    labels = Pipeline((ModelStep(logged.uri, options={"method": "predict"}),)).infer({"inputs": X}, registry=registry)
    assert list(labels["out.predictions"]) == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (None, pa.schema([("predictions", pa.int32())]), r"outputs are declared as \(predictions int32\); .* int64"),
        (None, (TensorSpec("predictions", "int64", (2,)),), r"outputs are declared as \(predictions int64\[2\]\)"),
        (pa.schema([("inputs", pa.list_(pa.float64(), 3))]), None, r"inputs float64\[3\]\); .* \(inputs float64\[4\]"),
        (pa.schema([("inputs", pa.string())]), None, "inputs are declared as"),
    ],
)
def test_a_schema_that_is_not_the_models_is_refused_with_both(
    registry: str, inputs: Any, outputs: Any, message: str
) -> None:
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(ModelError, match=r"^\[MODEL_SCHEMA\] .*" + message):
        lakemill.log_model(model, name="refused", input_schema=inputs, output_schema=outputs, registry=registry)
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_FOUND\]"):
        find("models:/refused/1", registry)


def test_declared_names_and_types_are_kept(registry: str) -> None:
    model = LinearRegression().fit(X, Y)
    inputs = pa.schema([("inputs", pa.list_(pa.float32(), 4))])
    logged = lakemill.log_model(
        model, name="declared", input_schema=inputs, output_schema=[TensorSpec("price", "float64")], registry=registry
    )
    assert (logged.inputs, logged.outputs) == (("inputs float32[4]",), ("price float64",))
    result = Pipeline((ModelStep(logged.uri),)).infer({"inputs": X.astype("float32")}, registry=registry)
    np.testing.assert_allclose(result["out.price"], model.predict(X), atol=1e-6)


def test_what_the_registry_holds_is_what_was_registered(registry: str) -> None:
    logged = lakemill.log_model(xgboost.XGBRegressor(n_estimators=2).fit(X, Y), name="changed", registry=registry)
    other = xgboost.XGBRegressor(n_estimators=3).fit(X, Y)
    other.save_model(find(logged.uri, registry).path / "model.ubj")
    with pytest.raises(ModelError, match=r"^\[MODEL_CHANGED\] .* what the registry holds is not what was registered"):
        Pipeline((ModelStep(logged.uri),)).infer({"inputs": X}, registry=registry)


def test_the_command_registers_a_file(registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LogisticRegression().fit(FRAME, Y)))
    FRAME.to_parquet(tmp_path / "rows.parquet")
    arguments = ["register", str(path), "--name", "by-command", "--registry", registry]
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        run(arguments)
    more = [
        "--trust",
        "--alias",
        "new",
        "--option",
        "method=predict_proba",
        "--example",
        str(tmp_path / "rows.parquet"),
    ]
    assert run([*arguments, *more, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["uri"], said["alias"], said["outputs"]) == (
        "models:/by-command/1",
        "new",
        ["probabilities float64[2]"],
    )


def converted(registry: str, model: Any, name: str, rows: Any = FRAME, **options: Any) -> Any:
    return lakemill.log_model(model, name=name, input_example=rows, convert="onnx", registry=registry, **options)


@pytest.mark.parametrize(
    ("name", "model", "method"),
    [
        ("linear", LinearRegression(), "predict"),
        ("logistic", LogisticRegression(), "predict"),
        ("logistic-scores", LogisticRegression(), "predict_proba"),
        ("scaled", make_pipeline(StandardScaler(), LogisticRegression()), "predict_proba"),
        ("forest", RandomForestClassifier(5), "predict_proba"),
        ("trees", xgboost.XGBClassifier(n_estimators=4), "predict_proba"),
        ("trees-labels", xgboost.XGBClassifier(n_estimators=4), "predict"),
        ("regression", xgboost.XGBRegressor(n_estimators=4), "predict"),
    ],
)
def test_a_converted_model_is_registered_with_a_certificate(registry: str, name: str, model: Any, method: str) -> None:
    frame = FRAME.astype("float32")
    fitted = model.fit(frame, Y)
    logged = converted(registry, fitted, f"onnx-{name}", frame, options={"method": method})
    assert logged.runtime == "onnx"
    certificate = logged.certificate
    assert (certificate["form"], certificate["rows"], certificate["equal_labels"]) == ("onnx", 200, 1.0)
    assert certificate["largest_error"] < 1e-4
    pipeline = Pipeline((ModelStep(logged.uri),))
    result = pipeline.infer(frame, registry=registry, dataset="out")
    np.testing.assert_allclose(np.stack(result.iloc[:, 0]), getattr(fitted, method)(frame), atol=1e-4)
    assert "onnx by" in str(pipeline.plan(frame, registry=registry))


def test_lightgbm_is_converted(registry: str) -> None:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X, Y)
    rows = {"inputs": X.astype("float32")}
    logged = converted(registry, model, "onnx-lightgbm", rows, options={"method": "predict_proba"})
    result = Pipeline((ModelStep(logged.uri),)).infer(rows, registry=registry)
    np.testing.assert_allclose(result["out.probabilities"], model.predict_proba(rows["inputs"]), atol=1e-4)


def test_columns_of_text_are_converted(registry: str) -> None:
    frame = pd.DataFrame({"a": X[:, 0].astype("float32"), "city": np.where(X[:, 1] > 0.5, "Bonn", "Rome")})
    columns = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["city"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, Y)
    logged = converted(registry, model, "onnx-text", frame, options={"method": "predict_proba"})
    result = Pipeline((ModelStep(logged.uri),)).infer(frame, registry=registry, dataset="out")
    np.testing.assert_allclose(np.stack(result.iloc[:, 0]), model.predict_proba(frame), atol=1e-4)


def test_a_wrong_conversion_is_refused_and_nothing_is_registered(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LinearRegression().fit(FRAME, Y)
    wrong = LinearRegression().fit(FRAME, Y)
    wrong.coef_ = wrong.coef_ * [1, 1, 1, 1.01]
    honest = converting.CONVERTERS["sklearn"]
    monkeypatch.setitem(converting.CONVERTERS, "sklearn", lambda _, spec: honest(wrong, spec))
    with pytest.raises(ModelError, match=r"^\[CONVERT_DISAGREES\] .* largest error .*; the worst rows: \d+, \d+"):
        converted(registry, model, "wrong")
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_FOUND\]"):
        find("models:/wrong/1", registry)
    assert converted(registry, model, "allowed", tolerance=0.1).certificate["largest_error"] > 1e-4


def test_labels_that_differ_are_refused_whatever_the_tolerance(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = FRAME.astype("float32")
    model, other = (LogisticRegression().fit(frame, labels) for labels in (Y, 1 - Y))
    honest = converting.CONVERTERS["sklearn"]
    monkeypatch.setitem(converting.CONVERTERS, "sklearn", lambda _, spec: honest(other, spec))
    with pytest.raises(ModelError, match=r"^\[CONVERT_DISAGREES\] .* 0.00% of labels equal"):
        converted(registry, model, "labels", frame, tolerance=10)


def test_a_conversion_needs_rows_and_a_model_that_can_be_converted(registry: str) -> None:
    with pytest.raises(LakemillError, match=r"^\[CONVERT_ROWS\]"):
        converted(registry, LinearRegression().fit(X, Y), "rows", None)


def test_weights_of_eight_bits_are_judged_like_any_conversion(registry: str, tmp_path: Path) -> None:
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(hidden_layer_sizes=(64,), max_iter=300, random_state=0).fit(X, X[:, 0])
    rows = {"inputs": X.astype("float32")}
    with pytest.raises(ModelError, match=r"^\[CONVERT_DISAGREES\] .*int8"):
        converted(registry, model, "int8", rows, quantize="int8", tolerance=1e-6 + 1e-5)
    logged = converted(registry, model, "int8", rows, quantize="int8", tolerance=0.1)
    assert (logged.runtime, logged.certificate["form"]) == ("onnx", "int8")
    result = Pipeline((ModelStep(logged.uri),)).infer(rows, registry=registry)
    np.testing.assert_allclose(result["out.predictions"], model.predict(X), atol=0.2)
