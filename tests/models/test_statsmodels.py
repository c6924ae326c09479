"""statsmodels through pyfunc: a regression by columns, and a forecast that takes and gives custom JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.tsa.arima.model import ARIMA

import lakemill
from lakemill import LakemillError, ModelStep, Pipeline

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.random((60, 3)), columns=list("abc"))
TEMPERATURE = RNG.random(40)
RIDES = 100 * TEMPERATURE + 3 * np.arange(40.0) + RNG.random(40)

FORECAST = """
import mlflow.models
import numpy as np
from mlflow.pyfunc import PythonModel
from statsmodels.tsa.arima.model import ARIMAResults

class Forecast(PythonModel):
    def load_context(self, context):
        self.fitted = ARIMAResults.load(context.artifacts["fitted"])

    def predict(self, context, model_input, params=None):
        days = [np.asarray(row) for row in model_input["temperature"]]
        return [{"forecast": self.fitted.forecast(len(row), exog=row).tolist()} for row in days]

mlflow.models.set_model(Forecast())
"""


@pytest.fixture(scope="module")
def forecast(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Return a fitted model, and an MLflow model from code whose row is one forecast of any length."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    folder = tmp_path_factory.mktemp("forecast")
    fitted = ARIMA(RIDES, exog=TEMPERATURE, order=(1, 0, 0)).fit()
    fitted.save(str(folder / "fitted.pkl"))
    (folder / "forecast.py").write_text(FORECAST)
    numbers = Array(DataType.double)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "forecast.py"),
        artifacts={"fitted": str(folder / "fitted.pkl")},
        signature=ModelSignature(Schema([ColSpec(numbers, "temperature")]), Schema([ColSpec(numbers, "forecast")])),
        pip_requirements=["mlflow", "statsmodels"],
    )
    return fitted, folder / "model"


def test_a_regression_runs_by_columns(tmp_path: Path) -> None:
    import mlflow.statsmodels
    from mlflow.models import infer_signature

    fitted = OLS(FRAME["a"] + 2 * FRAME["b"], FRAME).fit()
    expected = fitted.predict(FRAME)
    mlflow.statsmodels.save_model(
        fitted, tmp_path / "model", signature=infer_signature(FRAME, expected), pip_requirements=["statsmodels"]
    )
    result = Pipeline((ModelStep(tmp_path / "model"),)).infer(FRAME, dataset="out")
    np.testing.assert_allclose(result.iloc[:, 0], expected, rtol=1e-12)


def test_a_forecast_takes_and_gives_custom_json(forecast: tuple[Any, Path], tmp_path: Path) -> None:
    fitted, path = forecast
    (tmp_path / "week.json").write_text(json.dumps({"temperature": [0.2, 0.4, 0.6, 0.1, 0.3, 0.5, 0.7]}))
    (row,) = Pipeline((ModelStep(path),)).infer(tmp_path / "week.json", data_format="custom-json")
    np.testing.assert_allclose(row["forecast"], fitted.forecast(7, exog=[0.2, 0.4, 0.6, 0.1, 0.3, 0.5, 0.7]))


def test_a_forecast_that_gives_other_rows_than_it_takes_is_refused(tmp_path: Path) -> None:
    """MLflow's own flavor answers one row, ``start`` and ``end``, with a row for each day between."""
    import mlflow.statsmodels
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(Schema([ColSpec("long", "start"), ColSpec("long", "end")]), Schema([ColSpec("double")]))
    fitted = ARIMA(RIDES, order=(1, 0, 0)).fit()
    mlflow.statsmodels.save_model(fitted, tmp_path / "model", signature=signature, pip_requirements=["statsmodels"])
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_ROWS\]"):
        Pipeline((ModelStep(tmp_path / "model"),)).infer({"start": np.array([40]), "end": np.array([45])})


def test_a_folder_that_only_pyfunc_runs_is_registered(forecast: tuple[Any, Path], tmp_path: Path) -> None:
    import mlflow.pyfunc

    fitted, path = forecast
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    example = pd.DataFrame({"temperature": [[0.5, 0.7], [0.1, 0.2]]})
    logged = lakemill.log_model(path, name="rides", alias="production", registry=registry, input_example=example)
    assert logged.runtime == "pyfunc"
    expected = np.stack([fitted.forecast(2, exog=row) for row in example["temperature"]])
    result = Pipeline((ModelStep("models:/rides@production"),)).infer(example, registry=registry, dataset="out")
    np.testing.assert_allclose(np.stack(result["out.forecast"]), expected)
    from lakemill.pipelines.registry import find

    plain = mlflow.pyfunc.load_model(str(find(logged.uri, registry).path)).predict(example)
    np.testing.assert_allclose(np.stack(plain.iloc[:, 0]), expected)
