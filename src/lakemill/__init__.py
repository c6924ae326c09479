"""Lakemill runs your models over your Delta Lake.

Importing it is instant: Spark, MLflow and the model frameworks are imported where they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakemill.config.ingest import IngestConfig
    from lakemill.config.predict import PredictConfig
    from lakemill.engines.spark.session import get_session
    from lakemill.ingest.job import ingest_images
    from lakemill.pipelines.pipeline import Pipeline
    from lakemill.pipelines.registering import log_model
    from lakemill.predict.job import predict_table
    from lakemill.predict.stream import predict_stream
    from lakemill_udfs.errors import (
        ConfigError,
        LakemillError,
        ModelError,
        RowError,
        RunError,
        SetupError,
        TableError,
        TooManyErrorsError,
    )
    from lakemill_udfs.models.own_model import OwnModel
    from lakemill_udfs.steps.cascade import CascadeStep
    from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep, PythonStep
    from lakemill_udfs.steps.keyed import KeyedStep
    from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep, SplitStep
    from lakemill_udfs.tensors.spec import TensorSpec

__version__ = "0.1.0"

_HOME = {
    "Pipeline": "lakemill.pipelines.pipeline",
    "ImageStep": "lakemill_udfs.steps.declared",
    "ModelStep": "lakemill_udfs.steps.declared",
    "PythonStep": "lakemill_udfs.steps.declared",
    "FormatStep": "lakemill_udfs.steps.declared",
    "Check": "lakemill_udfs.steps.declared",
    "SplitStep": "lakemill_udfs.steps.traffic",
    "ShadowStep": "lakemill_udfs.steps.traffic",
    "EnsembleStep": "lakemill_udfs.steps.traffic",
    "KeyedStep": "lakemill_udfs.steps.keyed",
    "CascadeStep": "lakemill_udfs.steps.cascade",
    "OwnModel": "lakemill_udfs.models.own_model",
    "TensorSpec": "lakemill_udfs.tensors.spec",
    "PredictConfig": "lakemill.config.predict",
    "predict_table": "lakemill.predict.job",
    "predict_stream": "lakemill.predict.stream",
    "IngestConfig": "lakemill.config.ingest",
    "ingest_images": "lakemill.ingest.job",
    "log_model": "lakemill.pipelines.registering",
    "get_session": "lakemill.engines.spark.session",
    "LakemillError": "lakemill_udfs.errors",
    "ConfigError": "lakemill_udfs.errors",
    "SetupError": "lakemill_udfs.errors",
    "TableError": "lakemill_udfs.errors",
    "ModelError": "lakemill_udfs.errors",
    "RowError": "lakemill_udfs.errors",
    "RunError": "lakemill_udfs.errors",
    "TooManyErrorsError": "lakemill_udfs.errors",
}

__all__ = [  # a test compares the three lists
    "CascadeStep",
    "Check",
    "ConfigError",
    "EnsembleStep",
    "FormatStep",
    "ImageStep",
    "IngestConfig",
    "KeyedStep",
    "LakemillError",
    "ModelError",
    "ModelStep",
    "OwnModel",
    "Pipeline",
    "PredictConfig",
    "PythonStep",
    "RowError",
    "RunError",
    "SetupError",
    "ShadowStep",
    "SplitStep",
    "TableError",
    "TensorSpec",
    "TooManyErrorsError",
    "get_session",
    "ingest_images",
    "log_model",
    "predict_stream",
    "predict_table",
]


if not TYPE_CHECKING:  # a type checker then sees a name that is not there

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'lakemill' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
