"""scikit-learn and XGBoost on their own runtimes: the same numbers as the framework called directly."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from lakemill.pipelines.pipeline import Pipeline
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.models import xgboost_runtime
from lakemill_udfs.steps.declared import ModelStep

RANDOM = np.random.default_rng(0)
X = RANDOM.random((60, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
THREE = np.array(["low", "middle", "high"], dtype=object)[(X[:, 0] * 3).astype(int)]
FRAME = pd.DataFrame(X, columns=list("abcd"))
MIXED = pd.DataFrame(
    {
        "age": np.where(X[:, 0] < 0.2, np.nan, X[:, 0] * 90),
        "city": np.array(["Bonn", "Rome", "Oslo", None], dtype=object)[(X[:, 1] * 4).astype(int)],
        "size": pd.Categorical(np.array(["S", "M", "L"])[(X[:, 2] * 3).astype(int)]),
    }
)


def saved(model: Any, folder: Path, suffix: str) -> Path:
    """Save a model as users do."""
    path = folder / f"model{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(model))
    elif suffix == ".joblib":
        joblib.dump(model, path, compress=3)
    elif suffix == ".skops":
        import skops.io

        skops.io.dump(model, path)
    else:
        model.save_model(path)
    return path


def out(path: Path, data: Any, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the results of a pipeline of one model."""
    step = ModelStep(path, trust=path.suffix != ".skops", options=options)
    table = Pipeline((step,)).infer(
        pa.Table.from_pandas(data) if isinstance(data, pd.DataFrame) else data, dataset="out"
    )
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def same(found: Any, expected: Any) -> None:
    """Compare results: numbers but for the last bits, which depend on how many rows one call has."""
    if np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        np.testing.assert_array_equal(found, expected)


def as_array(frame: pd.DataFrame) -> pa.Table:
    """Return the frame's columns as one array ``inputs``."""
    return pa.table({"inputs": list(frame.to_numpy())})


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".skops"])
@pytest.mark.parametrize("form", ["columns", "array"])
@pytest.mark.parametrize(
    ("method", "name"),
    [("predict", "predictions"), ("predict_proba", "probabilities"), ("decision_function", "scores")],
)
def test_a_classifier_gives_what_its_method_gives(
    tmp_path: Path, suffix: str, form: str, method: str, name: str
) -> None:
    model = LogisticRegression().fit(FRAME, THREE)
    result = out(saved(model, tmp_path, suffix), FRAME if form == "columns" else as_array(FRAME), method=method)
    assert result.keys() == {f"out.{name}"}
    same(result[f"out.{name}"], getattr(model, method)(FRAME))


@pytest.mark.parametrize(
    ("model", "method", "name"),
    [
        (LinearRegression(), "predict", "predictions"),
        (RandomForestRegressor(5, n_jobs=2), "predict", "predictions"),
        (make_pipeline(StandardScaler(), PCA(2)), "transform", "features"),
        (PCA(3), "transform", "features"),
        (LinearSVC(), "decision_function", "scores"),
    ],
)
def test_a_model_without_names_takes_one_array(tmp_path: Path, model: Any, method: str, name: str) -> None:
    fitted = model.fit(X, Y)
    result = out(saved(fitted, tmp_path, ".pkl"), as_array(FRAME), method=method)
    np.testing.assert_allclose(result[f"out.{name}"], getattr(fitted, method)(X), rtol=1e-9)


def test_columns_of_text_nulls_and_categories_go_by_name_in_any_order(tmp_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numbers, ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["city", "size"]))
    model = make_pipeline(columns, LogisticRegression()).fit(MIXED, Y)
    path = saved(model, tmp_path, ".pkl")
    inputs = resolve(Pipeline((ModelStep(path, trust=True),))).models[0].inputs
    assert [str(spec) for spec in inputs] == ["age float64", "city string", "size string"]
    result = out(path, MIXED[["size", "age", "city"]], method="predict_proba")
    same(result["out.probabilities"], model.predict_proba(MIXED))


def test_missing_numbers_reach_a_model_that_takes_them_and_no_other(tmp_path: Path) -> None:
    frame = FRAME.where(FRAME > 0.2)
    table = pa.Table.from_pandas(frame)
    assert table["a"].null_count
    trees = HistGradientBoostingClassifier(max_iter=5).fit(frame, Y)
    np.testing.assert_array_equal(out(saved(trees, tmp_path, ".pkl"), table)["out.predictions"], trees.predict(frame))
    linear = saved(LinearRegression().fit(FRAME, Y), tmp_path, ".pkl")
    with pytest.raises(LakemillError, match=r"^\[INPUT_NULL\] .*a"):
        out(linear, table)


def test_texts_go_to_a_vectorizer(tmp_path: Path) -> None:
    texts = ["good day", "bad day", "good night", "bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    step = ModelStep(saved(model, tmp_path, ".joblib"), inputs={"inputs": "review"}, trust=True)
    result = Pipeline((step,)).infer({"review": texts})
    assert result["out.predictions"] == model.predict(texts).tolist()


def test_a_sparse_result_is_an_array(tmp_path: Path) -> None:
    encoder = OneHotEncoder().fit(MIXED[["size"]])
    result = out(saved(encoder, tmp_path, ".pkl"), MIXED[["size"]], method="transform")
    np.testing.assert_array_equal(result["out.features"], encoder.transform(MIXED[["size"]]).toarray())


def test_a_pickle_is_loaded_only_where_the_user_trusts_it(tmp_path: Path) -> None:
    hostile = tmp_path / "model.pkl"
    hostile.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\] .* Hint: trust: true"):
        Pipeline((ModelStep(hostile),)).infer({"inputs": X})
    assert not (tmp_path / "ran").exists()
    model = LogisticRegression().fit(X, Y)
    plain = Pipeline((ModelStep(saved(model, tmp_path, ".skops")),))
    assert plain.infer({"inputs": X})["out.predictions"] == model.predict(X).tolist()


def test_a_method_that_the_model_has_not_is_named_with_those_it_has(tmp_path: Path) -> None:
    path = saved(LinearSVC().fit(X, Y), tmp_path, ".skops")
    with pytest.raises(ModelError, match=r"^\[MODEL_OPTION\] .* has no predict_proba; it has: predict, decision_fun"):
        out(path, as_array(FRAME), method="predict_proba")
    with pytest.raises(ModelError, match=r"^\[MODEL_OPTION\] .* runs on sklearn, which has no option 'mehtod'"):
        out(path, as_array(FRAME), mehtod="predict")


def test_a_bad_pickle_says_why(tmp_path: Path) -> None:
    path = saved(LogisticRegression().fit(X, Y), tmp_path, ".pkl")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] .*damaged or cut short"):
        out(path, as_array(FRAME))
    path.write_bytes(b"csklearn.nowhere\nThing\n.")
    with pytest.raises(ModelError, match=r"^\[MODEL_MODULE_MISSING\] .*'sklearn.nowhere'"):
        out(path, as_array(FRAME))


ESTIMATORS = {
    "classifier": xgboost.XGBClassifier(n_estimators=4),
    "regressor": xgboost.XGBRegressor(n_estimators=4),
    "forest classifier": xgboost.XGBRFClassifier(n_estimators=4),
    "forest regressor": xgboost.XGBRFRegressor(n_estimators=4),
    "linear": xgboost.XGBRegressor(n_estimators=4, booster="gblinear"),
}


@pytest.mark.parametrize("suffix", [".json", ".ubj", ".pkl"])
@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("form", ["columns", "array"])
def test_xgboosts_estimators(tmp_path: Path, suffix: str, kind: str, form: str) -> None:
    frame = FRAME if kind == "linear" else FRAME.where(FRAME > 0.2)
    model = ESTIMATORS[kind].fit(frame, Y)
    data = pa.Table.from_pandas(frame) if form == "columns" else as_array(frame)
    result = out(saved(model, tmp_path, suffix), data)
    np.testing.assert_array_equal(result["out.predictions"], model.predict(frame))
    if kind == "classifier":
        found = out(tmp_path / f"model{suffix}", data, method="predict_proba")["out.probabilities"]
        np.testing.assert_array_equal(found.astype("float32"), model.predict_proba(frame))


@pytest.mark.parametrize("suffix", [".json", ".ubj", ".pkl"])
@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "multi:softprob", "rank:pairwise"])
def test_xgboosts_boosters(tmp_path: Path, suffix: str, objective: str) -> None:
    data = xgboost.DMatrix(X, Y, missing=0)
    settings = {"objective": objective} | ({"num_class": 2} if "multi" in objective else {})
    booster = xgboost.train(settings, data, 4)
    path = saved(booster, tmp_path, suffix)
    result = out(path, as_array(FRAME))
    np.testing.assert_array_equal(result["out.predictions"].astype("float32"), booster.predict(data))
    margin = out(path, as_array(FRAME), method="margin")["out.margin"]
    np.testing.assert_array_equal(margin.astype("float32"), booster.predict(data, output_margin=True))


def test_xgboosts_ranker(tmp_path: Path) -> None:
    ranker = xgboost.XGBRanker(n_estimators=4).fit(FRAME, Y, qid=np.repeat([0, 1, 2], 20))
    result = out(saved(ranker, tmp_path, ".ubj"), FRAME)
    np.testing.assert_array_equal(result["out.predictions"].astype("float32"), ranker.predict(FRAME))


def test_xgboosts_categories_go_by_name(tmp_path: Path) -> None:
    frame = MIXED.astype({"city": "category"})
    model = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(frame, Y)
    path = saved(model, tmp_path, ".ubj")
    spec = resolve(Pipeline((ModelStep(path),))).models[0]
    assert (spec.flavor, [str(one) for one in spec.inputs]) == (
        "xgboost",
        ["age float64", "city string", "size string"],
    )
    result = out(path, MIXED.iloc[::-1], method="predict_proba")
    np.testing.assert_array_equal(result["out.probabilities"].astype("float32"), model.predict_proba(frame.iloc[::-1]))


@pytest.mark.parametrize("kind", ["sklearn", "sklearn pickle", "xgboost", "booster", "lightgbm"])
@pytest.mark.parametrize("signed", ["columns", "tensor", "nothing"])
def test_an_mlflow_model_runs_on_its_own_runtime_as_on_pyfunc(tmp_path: Path, kind: str, signed: str) -> None:
    import lightgbm
    import mlflow.lightgbm
    import mlflow.sklearn
    import mlflow.xgboost
    from mlflow.models import infer_signature

    data: Any = FRAME if signed == "columns" else X
    model: Any = LogisticRegression() if "sklearn" in kind else xgboost.XGBClassifier(n_estimators=4)
    fitted = (lightgbm.LGBMClassifier(n_estimators=4, verbose=-1) if kind == "lightgbm" else model).fit(data, Y)
    fitted = fitted.get_booster() if kind == "booster" else fitted
    direct = fitted.predict(xgboost.DMatrix(data)) if kind == "booster" else fitted.predict(data)
    signature = None if signed == "nothing" else infer_signature(data, direct)
    arguments = {"signature": signature, "pip_requirements": ["mlflow"]}
    if "sklearn" in kind:
        form = "cloudpickle" if "pickle" in kind else "skops"
        mlflow.sklearn.save_model(fitted, tmp_path / "model", serialization_format=form, **arguments)
    elif kind == "lightgbm":
        mlflow.lightgbm.save_model(fitted, tmp_path / "model", **arguments)
    else:
        mlflow.xgboost.save_model(fitted, tmp_path / "model", **arguments)
    given = pa.Table.from_pandas(FRAME) if signed == "columns" else pa.table({"inputs": list(X)})
    if signed == "nothing" and kind in ("sklearn pickle", "lightgbm"):
        with pytest.raises(ModelError, match=r"^\[MODEL_(INPUT_MISSING|OUTPUT_UNKNOWN)\]"):
            Pipeline((ModelStep(tmp_path / "model"),)).infer(given)
        return
    native = Pipeline((ModelStep(tmp_path / "model"),))
    plan = native.plan(given)
    runtime = {"booster": "xgboost", "lightgbm": "sklearn", "sklearn pickle": "sklearn"}.get(kind, kind)
    assert plan.models[0]["runtime"] == runtime, str(plan)
    found = native.infer(given, dataset="out")
    np.testing.assert_array_equal(np.array(found.column(0).to_pylist()).astype(direct.dtype), direct)
    if signed != "nothing":
        forced = Pipeline((ModelStep(tmp_path / "model", runtime="pyfunc"),))
        assert forced.plan(given).models[0]["runtime"] == "pyfunc"
        assert forced.infer(given, dataset="out").equals(found)


def test_a_runtime_that_does_not_take_the_model_is_named(tmp_path: Path) -> None:
    path = saved(LogisticRegression().fit(X, Y), tmp_path, ".skops")
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_FOUND\] the runtime 'xgboost' does not take"):
        Pipeline((ModelStep(path, runtime="xgboost"),)).infer({"inputs": X})
    with pytest.raises(ModelError, match=r"^\[MODEL_FLAVOR\] no runtime here is called 'xgbost'"):
        Pipeline((ModelStep(path, runtime="xgbost"),)).infer({"inputs": X})


def test_neither_runtime_imports_mlflow(tmp_path: Path) -> None:
    saved(LogisticRegression().fit(X, Y), tmp_path, ".skops")
    saved(xgboost.XGBClassifier(n_estimators=2).fit(X, Y), tmp_path, ".ubj")
    script = """
import sys
import numpy as np
from lakemill import ModelStep, Pipeline
for name in ("model.skops", "model.ubj"):
    Pipeline((ModelStep(name),)).infer({"inputs": np.ones((2, 4))})
assert "mlflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_a_logged_pipeline_holds_a_native_model_with_its_options(tmp_path: Path) -> None:
    import mlflow.pyfunc

    model = LogisticRegression().fit(FRAME, THREE)
    step = ModelStep(saved(model, tmp_path, ".skops"), options={"method": "predict_proba"})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logged = Pipeline((step,)).log(registered_model_name="tabular", registry=uri)
    from lakemill.pipelines.registry import find

    served = mlflow.pyfunc.load_model(str(find(logged, uri).path)).predict(FRAME)
    same(np.stack(served["out.probabilities"]), model.predict_proba(FRAME))


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_card_that_xgboost_has_not_is_an_error_and_never_a_run_on_the_cpu(tmp_path: Path, device: str) -> None:
    path = saved(xgboost.XGBClassifier(n_estimators=2).fit(X, Y), tmp_path, ".ubj")
    (spec,) = resolve(Pipeline((ModelStep(path),))).models
    with pytest.raises(ModelError, match=rf"^\[DEVICE_MISSING\] engine.device is {device}"):
        xgboost_runtime.load(path, spec, threads=1, device=device)
