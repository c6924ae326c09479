"""``Pipeline``: the value that workers know, with its ways to run: in-process, on a DataFrame, as an MLflow model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lakemill.config import validate
from lakemill.planning import make_plan, task_threads
from lakemill.resolving import Resolved, resolve
from lakemill_udfs import pipeline as declared
from lakemill_udfs.worker import predict_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Pipeline(declared.Pipeline):
    """Steps and checks, declared once and run anywhere.

    Args:
        steps: ``ImageStep``, ``ModelStep``, ``PythonStep`` and ``FormatStep`` in order.
        checks: Conditions on inputs and outputs.
        outputs: The steps' outputs that make up ``out``; by default those that no later step reads.
    """

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Return the pipeline of a YAML file: the ``pipeline`` section of a job, or its ``steps`` and ``checks`` alone.

        Raises:
            ConfigError: as ``JobConfig.load``.
        """
        from lakemill.config import read_yaml
        from lakemill.predict_config import PipelineConfig

        raw = read_yaml(path)
        config = validate(PipelineConfig, raw.get("pipeline", raw), where=str(path))
        plain = config.declared()
        return cls(plain.steps, plain.checks, plain.outputs, plain.inputs)

    def resolve(self, registry: str | None = None) -> Resolved:
        """Find the models and fix their versions.

        Raises:
            ModelError: a model is unknown or does not say what it needs.
        """
        return resolve(self, registry)

    def infer(self, data: Any, *, registry: str | None = None) -> Any:
        """Score in this process: pandas in, pandas out; Arrow in, Arrow out; dict in, dict out. No JVM.

        Args:
            data: ``pandas.DataFrame``, ``pyarrow.Table`` or a dict from each input to its batch, rows first.
            registry: MLflow registry of its models.

        Raises:
            RowError: a row is bad; the message names the row and the reason.
            ModelError: a model is unknown, or does not fit ``data``.
        """
        from lakemill.inference import infer

        return infer(self.resolve(registry), data)

    def transform(
        self, df: DataFrame, *, columns: Sequence[str] | None = None, registry: str | None = None
    ) -> DataFrame:
        """Score a DataFrame, batch or stream, lazily and in one pass; every row comes out, with a nullable ``error``.

        Args:
            df: The source.
            columns: Columns that are carried into the result; by default all that are not binary.
            registry: MLflow registry of its models.

        Raises:
            ModelError: a model is unknown, or nothing feeds one of its inputs.
            TableError: a column is missing or of the wrong type.
        """
        return score(df, self.resolve(registry), columns=columns)

    def log(
        self,
        *,
        name: str = "pipeline",
        registered_model_name: str | None = None,
        alias: str | None = None,
        registry: str | None = None,
        input_example: Any = None,
    ) -> str:
        """Log the pipeline with all its models as one ordinary MLflow model, and return its URI.

        Any MLflow server can serve it, and ``models:/...`` of it is a pipeline again.

        Args:
            name: Name of the logged model.
            registered_model_name: Also register it under this name.
            alias: Alias that the new version gets, for example ``production``.
            registry: MLflow tracking and registry URI; None leaves MLflow's own settings.
            input_example: A small ``pandas.DataFrame`` of inputs.

        Raises:
            ModelError: ``EXTRA_MISSING`` without MLflow, or a model is unknown.
        """
        from lakemill.logging_models import log_pipeline

        return log_pipeline(
            self,
            name=name,
            registered_model_name=registered_model_name,
            alias=alias,
            registry=registry,
            input_example=input_example,
        )


def score(df: DataFrame, resolved: Resolved, *, columns: Sequence[str] | None = None) -> DataFrame:
    """Score a DataFrame with a resolved pipeline; see ``Pipeline.transform``."""
    from pyspark.sql.types import BinaryType

    from lakemill.schemas import result_schema, spark_tensors
    from lakemill.shipping import ship

    carried = (
        [field.name for field in df.schema if not isinstance(field.dataType, BinaryType)]
        if columns is None
        else list(columns)
    )
    plan = make_plan(resolved, spark_tensors(df.schema), passthrough=carried, threads=task_threads(df.sparkSession))
    plan = ship(df.sparkSession, replace(plan, parts=tuple(part for part in plan.parts if part != "in")))
    return df.select(*plan.source_columns).mapInArrow(
        functools.partial(predict_batches, plan), result_schema(plan, df.schema)
    )
