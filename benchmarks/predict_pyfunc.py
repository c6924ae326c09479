"""The predict benchmark's network as an MLflow model: models from code, so this file is the model."""

from __future__ import annotations

import pandas as pd
import predict_plain
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class PhotoClassifier(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.path = context.artifacts["network"]
        predict_plain.load(self.path)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(predict_plain.score(self.path, list(model_input["content"])))


set_model(PhotoClassifier())
