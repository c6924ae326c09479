"""The demo's model: a classifier trained on a Delta table, logged with its image step as one pipeline."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakemill.engines.engine import Engine, opened
from lakemill.pipelines.registry import mlflow_at
from lakemill_udfs.errors import missing_extra
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep

NAME, ALIAS = "digits", "production"
URI = f"models:/{NAME}@{ALIAS}"
SIDE_PIXELS = 8
IMAGE = ImageStep(
    column="content",
    mode="L",
    size=(SIDE_PIXELS, SIDE_PIXELS),
    mean=(0.5,),
    std=(0.25,),
    layout="flat",
    output="pixels",
)
TRAINED_ON = "images_version"  # parameter of the MLflow run


@dataclass(frozen=True)
class DemoModel:
    """The registered pipeline.

    Args:
        uri: By its alias, ``models:/digits@production``.
        version: Registered version that the alias stands for.
    """

    uri: str
    version: str


def registered(registry: str) -> tuple[DemoModel, str | None] | None:
    """Return the registered pipeline and the version of the table of images it was trained on; None if there is none.

    The first call makes the registry and takes seconds. It touches no global setting, so another thread may do it.

    Raises:
        ModelError: ``EXTRA_MISSING`` if MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise missing_extra("mlflow", "mlflow") from error

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells at length that it makes its tables
    client = MlflowClient(tracking_uri=registry, registry_uri=registry)
    if not any(ALIAS in model.aliases for model in client.search_registered_models(f"name = '{NAME}'")):
        return None
    version = client.get_model_version_by_alias(NAME, ALIAS)
    return DemoModel(URI, str(version.version)), client.get_run(str(version.run_id)).data.params.get(TRAINED_ON)


def train_and_register(engine: Engine, images: str, where: str, *, registry: str, artifacts: Path) -> DemoModel:
    """Train, log and register the digits pipeline.

    Args:
        engine: What reads the table.
        images: Table of images with ``content`` and ``label``.
        where: SQL predicate that selects the train split.
        registry: MLflow tracking and registry URI.
        artifacts: Folder for MLflow's artifacts.

    Raises:
        ModelError: ``EXTRA_MISSING`` if MLflow or scikit-learn is not installed.
    """
    with mlflow_at(registry) as mlflow, tempfile.TemporaryDirectory() as folder:
        known = mlflow.get_experiment_by_name(NAME)
        experiment_id = known.experiment_id if known else mlflow.create_experiment(NAME, artifacts.as_uri())
        with mlflow.start_run(experiment_id=experiment_id):
            model, rows = train(engine, images, where)
            mlflow.log_params({TRAINED_ON: opened(engine, images).version, "train_rows": rows})
            logged = log(mlflow, model, Path(folder) / "classifier", registry)
    return DemoModel(URI, logged.rpartition("/")[2])


def train(engine: Engine, images: str, where: str) -> tuple[Any, int]:
    """Fit a classifier on the pixels that the pipeline's own image step makes.

    Returns:
        A fitted scikit-learn ``LogisticRegression``, and the number of images that it saw.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from lakemill.pipelines.pipeline import Pipeline

    rows = engine.rows(opened(engine, images)).where(where).select(["content", "label"]).to_arrow()
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

    from lakemill.pipelines.pipeline import Pipeline

    inputs = Schema([TensorSpec(np.dtype("float32"), (-1, SIDE_PIXELS**2))])
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, len(model.classes_)))])
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=ModelSignature(inputs, outputs),
        serialization_format="skops",
        pip_requirements=["scikit-learn", "skops"],
        pyfunc_predict_fn="predict_proba",
    )
    pipeline = Pipeline(
        steps=(
            IMAGE,
            ModelStep(uri=str(folder), inputs={"input": "pixels"}, outputs={"output": "probabilities"}),
            FormatStep(input="probabilities", labels=tuple(str(label) for label in model.classes_)),
        )
    )
    return pipeline.log(name=NAME, registered_model_name=NAME, alias=ALIAS, registry=registry)
