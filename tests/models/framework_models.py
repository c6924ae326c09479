"""One small model of each light framework, with its result when the framework is called directly."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lakemill_udfs.steps.declared import ModelStep

COLUMNS = list("abcd")
FRAME = pd.DataFrame(np.random.default_rng(0).random((60, 4)), columns=COLUMNS)
LABELS = (FRAME["a"] + FRAME["b"] > 1).astype(int)

OWN = """
import numpy as np
from pathlib import Path
from lakemill_udfs.models.own_model import OwnModel
from lakemill_udfs.tensors.spec import TensorSpec

class Sum(OwnModel):
    inputs = tuple(TensorSpec(name, "float64") for name in "abcd")
    outputs = (TensorSpec("score", "float64"),)

    def load(self, folder: Path):
        return float((folder / "factor.txt").read_text())

    def predict(self, inputs):
        return {"score": self.model * sum(inputs[name] for name in "abcd")}
"""


@dataclass(frozen=True)
class Case:
    """A model.

    Args:
        step: Runs it.
        output: Its output's name.
        expected: Of ``FRAME``.
    """

    step: ModelStep
    output: str
    expected: np.ndarray[Any, Any]


def sklearn_pickle(folder: Path) -> Case:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(FRAME, LABELS)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    step = ModelStep(str(folder / "model.pkl"), options={"method": "predict_proba"}, trust=True)
    return Case(step, "probabilities", model.predict_proba(FRAME))


def sklearn_skops(folder: Path) -> Case:
    import skops.io
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge()).fit(FRAME, LABELS)
    skops.io.dump(model, folder / "model.skops")
    return Case(ModelStep(str(folder / "model.skops")), "predictions", model.predict(FRAME))


def xgboost_estimator(folder: Path) -> Case:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=4).fit(FRAME, LABELS)
    model.save_model(folder / "model.json")
    return Case(ModelStep(str(folder / "model.json")), "predictions", model.predict(FRAME))


def xgboost_booster(folder: Path) -> Case:
    import xgboost

    data = xgboost.DMatrix(FRAME, LABELS)
    model = xgboost.train({"objective": "binary:logistic"}, data, 4)
    model.save_model(folder / "model.ubj")
    return Case(ModelStep(str(folder / "model.ubj")), "predictions", model.predict(data))


def onnx_graph(folder: Path) -> Case:
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(FRAME.to_numpy("float32"), LABELS)
    graph = to_onnx(model, FRAME.to_numpy("float32")[:1])
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (expected,) = session.run(None, {"X": FRAME.to_numpy("float32")})
    return Case(ModelStep(str(folder / "model.onnx"), inputs={"X": "inputs"}), "variable", expected)


def python_function(folder: Path) -> Case:
    (folder / "step.py").write_text("def process_data(x):\n    return {'total': x['a'] + 2 * x['b']}\n")
    step = ModelStep(
        str(folder / "step.py"),
        inputs={"a": "a", "b": "b"},
        outputs={"total": {"dtype": "float64"}},
        trust=True,
    )
    return Case(step, "total", (FRAME["a"] + 2 * FRAME["b"]).to_numpy())


def own_class(folder: Path) -> Case:
    (folder / "own").mkdir()
    (folder / "own" / "model.py").write_text(OWN)
    (folder / "own" / "factor.txt").write_text("3")
    return Case(ModelStep(str(folder / "own"), trust=True), "score", 3 * FRAME.sum(axis=1).to_numpy())


def lightgbm_pyfunc(folder: Path) -> Case:
    import lightgbm
    import mlflow.lightgbm
    from mlflow.models import infer_signature

    model = lightgbm.LGBMRegressor(n_estimators=4, verbose=-1).fit(FRAME, LABELS)
    expected = model.predict(FRAME)
    signature = infer_signature(FRAME, expected)
    mlflow.lightgbm.save_model(model, folder / "model", signature=signature, pip_requirements=["lightgbm"])
    return Case(ModelStep(str(folder / "model"), runtime="pyfunc"), "output", expected)


def lightgbm_mlflow(folder: Path) -> Case:
    case = lightgbm_pyfunc(folder)
    return Case(ModelStep(case.step.uri), "output", case.expected)


CASES: dict[str, Callable[[Path], Case]] = {
    case.__name__: case
    for case in (
        sklearn_pickle,
        sklearn_skops,
        xgboost_estimator,
        xgboost_booster,
        onnx_graph,
        python_function,
        own_class,
        lightgbm_pyfunc,
        lightgbm_mlflow,
    )
}
BY_ARRAY = ("onnx_graph",)
"""Cases whose model takes one array only."""

BY_COLUMN = ("python_function",)
"""Cases whose model takes columns only."""


def numbers(cells: Any) -> np.ndarray[Any, Any]:
    """Return a result's column as one array."""
    return np.array([np.asarray(cell) for cell in cells])
