"""One MLflow store for the tests of a module: making it takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep
from tests.lake import onnx_classifier


@dataclass(frozen=True)
class Registry:
    """An MLflow store and what is in it.

    Args:
        uri: Its tracking and registry URI.
        pipeline: What was logged and registered as ``digits``, alias ``production``.
        logged: The registered version's URI.
        folder: Holds MLflow models ``tensors`` and ``columns``, named for their signatures.
    """

    uri: str
    pipeline: Pipeline
    logged: str
    folder: Path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Yield an SQLite store with a logged pipeline, beside models of scikit-learn."""
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    from lakemill.pipelines.registry import mlflow_at

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    with mlflow_at(uri):
        mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        x = np.random.default_rng(0).random((40, 4))
        frame = pd.DataFrame(x[:, :2], columns=["a", "b"])
        by_tensor = LogisticRegression().fit(x, x[:, 0] > x[:, 1])
        by_column = LogisticRegression().fit(frame, x[:, 0] > x[:, 1])
        for name, fitted, given in (("tensors", by_tensor, x), ("columns", by_column, frame)):
            result = fitted.predict(given)
            signature = infer_signature(given, result if name == "tensors" else pd.Series(result, name="sign"))
            mlflow.sklearn.save_model(fitted, folder / name, signature=signature, pip_requirements=["scikit-learn"])
        model = onnx_classifier(folder / "model.onnx")
    pipeline = Pipeline(
        (
            ImageStep(mode="L", size=(8, 8), layout="flat", output="pixels"),
            ModelStep(str(model)),
            FormatStep("logits", softmax=True, labels=("a", "b", "c")),
        ),
        (Check("unsure", "out.probability < 0.5"),),
    )
    logged = pipeline.log(registered_model_name="digits", alias="production", registry=uri)
    yield Registry(uri, pipeline, logged, folder)
    # MLflow has no way to leave an experiment; in another store there is none of that number.
    mlflow.tracking.fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
