"""A logged pipeline as MLflow loads it: MLflow runs this file ("models from code"), so nothing is pickled.

It needs this package only, which MLflow keeps beside the model; Lakemill's driver side is not installed on a server.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.models
import pyarrow as pa
from mlflow.pyfunc.model import PythonModel

from lakemill_udfs.errors import RowError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.tensors.spec import TensorSpec, arrow_tensors, declared
from lakemill_udfs.wiring import wire
from lakemill_udfs.worker import predict_batches, predict_whole


class LoggedPipeline(PythonModel):
    """The pipeline behind MLflow's ``predict``: a DataFrame of inputs in, one column for each output out."""

    def load_context(self, context: Any) -> None:
        """Read the steps from the model's configuration and find its models among the artifacts."""
        self.pipeline = Pipeline.from_dict(context.model_config["lakemill_pipeline"])
        names, steps = self.pipeline.artifacts, self.pipeline.model_steps
        self.models = tuple(
            _spec(raw, step.uri, context.artifacts[name])
            for raw, name, step in zip(context.model_config["models"], names, steps, strict=True)
        )

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- MLflow takes hints for a schema
        """Score a DataFrame.

        Raises:
            RowError: a row is bad; names the row, the stage and the reason.
        """
        table = pa.Table.from_pandas(model_input, preserve_index=False)
        wiring = wire(self.pipeline, self.models, arrow_tensors(table.schema))
        nested = tuple(
            replace(spec, storage="array") for spec in wiring.outputs
        )  # as the signature says, for any reader
        plan = PredictPlan(
            self.pipeline,
            self.models,
            replace(wiring, outputs=nested),
            batch_rows=256,
            threads=0,
            parts=("out", "anomaly"),
        )
        parts = list(predict_batches(plan, table.to_batches()))
        result = pa.Table.from_batches(parts) if parts else predict_whole(plan, table)  # the columns need no row
        for row, error in enumerate(result["error"].to_pylist()):
            if error is not None:
                raise RowError(error["code"], f"row {row}, {error['stage']}: {error['message']}")
        out = result["out"].combine_chunks()
        return pa.table([*out.flatten()], names=[f"out.{field.name}" for field in out.type]).to_pandas()


def _spec(raw: dict[str, Any], uri: str, path: str) -> ModelSpec:
    def tensors(side: str) -> tuple[TensorSpec, ...]:
        return tuple(declared(name, spec) for name, spec in raw[side].items())

    return ModelSpec(
        uri,
        str(Path(path) / raw["file"] if raw.get("file") else Path(path)),
        raw["flavor"],
        raw["name"],
        raw["version"],
        raw["sha256"],
        tensors("inputs"),
        tensors("outputs"),
        beside=tuple(raw.get("beside", ())),
        options=raw.get("options", {}),
    )


mlflow.models.set_model(LoggedPipeline())
