"""The demo's model: a classifier trained on a Delta table, logged with its image step as one pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakemill import tables
from lakemill.registry import mlflow_at
from lakemill_udfs.steps import FormatStep, ImageStep, ModelStep

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME, ALIAS = "digits", "production"
SIDE_PIXELS = 8
IMAGE = ImageStep(column="content", mode="L", size=(SIDE_PIXELS, SIDE_PIXELS), mean=(0.5,), std=(0.25,), layout="flat",
                  output="pixels")
TRAINED_ON = "images_version"  # parameter of the MLflow run


@dataclass(frozen=True)
class DemoModel:
    """The registered pipeline.

    Args:
        uri: By its alias, ``models:/digits@production``.
        version: Registered version that the alias stands for.
        is_new: Whether it was trained now.
    """

    uri: str
    version: str
    is_new: bool


def train_if_needed(
    spark: SparkSession, images: str, where: str, *, registry: str, artifacts: Path, progress: Callable[[str], None]
) -> DemoModel:
    """Train, log and register the digits pipeline, unless the registered one was trained on this version of the table.

    Args:
        spark: The session.
        images: Table of images with ``content`` and ``label``.
        where: SQL predicate that selects the train split.
        registry: MLflow tracking and registry URI.
        artifacts: Folder for MLflow's artifacts.
        progress: Gets a line of text for each thing that happens.

    Raises:
        ModelError: ``EXTRA_MISSING`` if MLflow or scikit-learn is not installed.
    """
    images_version = tables.version(spark, images)
    uri = f"models:/{NAME}@{ALIAS}"
    with mlflow_at(registry) as mlflow:
        version = registered_version(mlflow, images_version)
        if version is not None:
            progress(f"version {version} of the model was trained on these images: nothing to train")
            return DemoModel(uri, version, is_new=False)
        experiment = mlflow.get_experiment_by_name(NAME)
        experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(NAME, artifacts.as_uri())
        with mlflow.start_run(experiment_id=experiment_id), tempfile.TemporaryDirectory() as folder:
            model, rows = train(spark, images, where)
            mlflow.log_params({TRAINED_ON: images_version, "train_rows": rows, "classes": len(model.classes_)})
            logged = log(mlflow, model, Path(folder) / "classifier", registry)
    version = logged.rpartition("/")[2]
    progress(f"trained on {rows:,} images and registered as {NAME} version {version}, alias {ALIAS}")
    return DemoModel(uri, version, is_new=True)


def registered_version(mlflow: Any, images_version: int) -> str | None:
    """Return the version that the alias stands for, if it was trained on this version of the images."""
    client = mlflow.MlflowClient()
    found = [model for model in client.search_registered_models(f"name = '{NAME}'") if ALIAS in model.aliases]
    if not found:
        return None
    version = client.get_model_version_by_alias(NAME, ALIAS)
    trained_on = client.get_run(version.run_id).data.params.get(TRAINED_ON)
    return str(version.version) if trained_on == str(images_version) else None


def train(spark: SparkSession, images: str, where: str) -> tuple[Any, int]:
    """Fit a classifier on the pixels that the pipeline's own image step makes.

    Returns:
        A fitted scikit-learn ``LogisticRegression``, and the number of images that it saw.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from lakemill.pipeline import Pipeline

    rows = tables.read(spark, images).where(where).select("content", "label").toArrow()
    pixels = Pipeline(steps=(IMAGE,)).infer(rows)
    features = np.stack(pixels["out.pixels"].to_numpy())
    return LogisticRegression(max_iter=500).fit(features, rows["label"].to_numpy()), len(features)


def log(mlflow: Any, model: Any, folder: Path, registry: str) -> str:
    """Log image step, classifier and format step as one MLflow model, register it and give it the alias.

    Args:
        mlflow: The module, set to the registry.
        model: Classifier with ``classes_`` and ``predict_proba``.
        folder: Gets the classifier; the logged pipeline holds a copy.
        registry: MLflow tracking and registry URI.

    Returns:
        ``models:/digits/<version>``.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from lakemill.pipeline import Pipeline

    inputs = Schema([TensorSpec(np.dtype("float32"), (-1, SIDE_PIXELS**2))])
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, len(model.classes_)))])
    mlflow.sklearn.save_model(model, folder, signature=ModelSignature(inputs, outputs), serialization_format="skops",
                              pip_requirements=["scikit-learn", "skops"], pyfunc_predict_fn="predict_proba")
    pipeline = Pipeline(steps=(
        IMAGE,
        ModelStep(uri=str(folder), inputs={"input": "pixels"}, outputs={"output": "probabilities"}),
        FormatStep(input="probabilities", labels=tuple(str(label) for label in model.classes_)),
    ))
    return pipeline.log(name=NAME, registered_model_name=NAME, alias=ALIAS, registry=registry)
