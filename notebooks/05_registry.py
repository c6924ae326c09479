# Databricks notebook source
# MAGIC %md
# MAGIC # Registry and promotion: which version may be used
# MAGIC
# MAGIC 1. two versions of a model, each with what it was trained on and how it scored on rows that it never saw,
# MAGIC 2. an alias moves to the one that scored well enough, and to no other,
# MAGIC 3. and back.
# MAGIC
# MAGIC It starts from the table of digits that `make demo` leaves in `./lake`, and needs neither PyTorch nor
# MAGIC TensorFlow: a loader of arrays feeds scikit-learn. For another folder set `LAKEMILL_LAKE`, or the widget on
# MAGIC Databricks, where the library comes first: `%pip install lakemill[mlflow,sklearn]`.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

MODEL = "digits"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. Two versions
# MAGIC
# MAGIC One sees thirty digits, one all of them; every tenth is held out from both.

# COMMAND ----------

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from lakemill import FormatStep, ImageStep, ModelError, ModelStep, Pipeline
from lakemill.training import SparkDatasetConverter, log_training_data, make_spark_converter, promote

STEP = ImageStep(column="content", mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), layout="flat", output="pixels")
TRAIN = "path LIKE '%/digits/train/%' AND NOT path LIKE '%0.png'"
HELD_OUT = "path LIKE '%/digits/train/%' AND path LIKE '%0.png'"
DIGITS = tuple(str(digit) for digit in range(10))

train_rows = make_spark_converter(f"{LAKE}/images", where=TRAIN, images=STEP)
held_out = make_spark_converter(f"{LAKE}/images", where=HELD_OUT, images=STEP, version=train_rows.table.version)


def arrays(rows: SparkDatasetConverter, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and labels of some rows, in an order that is the same each time."""
    with rows.make_loader(count, schema_fields=["pixels", "label"], shuffling_queue_capacity=len(rows)) as loader:
        batch = next(iter(loader))
    return batch["pixels"], batch["label"]


mlflow.set_tracking_uri(REGISTRY)
mlflow.set_registry_uri(REGISTRY)
if mlflow.get_experiment_by_name(MODEL) is None:
    mlflow.create_experiment(MODEL, (Path(LAKE).absolute() / "artifacts").as_uri())
mlflow.set_experiment(MODEL)
with make_spark_converter(f"{LAKE}/images", where=HELD_OUT).make_loader(1, schema_fields=["content"]) as loader:
    example = pd.DataFrame(next(iter(loader)))
versions = []
for count in (30, len(train_rows)):
    pixels, labels = arrays(train_rows, count)
    with mlflow.start_run(run_name=f"{count} digits"), tempfile.TemporaryDirectory() as folder:
        log_training_data(train_rows)
        log_training_data(held_out, "validation")
        classifier = LogisticRegression(max_iter=500).fit(pixels, labels)
        mlflow.log_metric("validation_accuracy", classifier.score(*arrays(held_out, len(held_out))))
        mlflow.sklearn.save_model(
            classifier,
            Path(folder) / "classifier",
            signature=mlflow.models.infer_signature(pixels, classifier.predict_proba(pixels)),
            serialization_format="skops",
            pip_requirements=["scikit-learn", "skops"],
            pyfunc_predict_fn="predict_proba",
        )
        model = ModelStep(f"{folder}/classifier", inputs={"input": "pixels"}, outputs={"output": "probabilities"})
        pipeline = Pipeline((STEP, model, FormatStep("probabilities", labels=DIGITS)))
        uri = pipeline.log(registered_model_name=MODEL, registry=REGISTRY, input_example=example)
    versions.append(uri.rpartition("/")[2])
small, large = versions
versions

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. An alias moves, or does not
# MAGIC
# MAGIC `promote` reads the metric of the version's own run. A version that scored less than asked, or less than the one
# MAGIC that has the alias, is refused.

# COMMAND ----------

refusals = []


def try_to_promote(version: str, alias: str, at_least: float) -> None:
    """Say what becomes of it."""
    try:
        promote(MODEL, version, to=alias, metric="validation_accuracy", at_least=at_least)
        print(f"version {version} is '{alias}'")
    except ModelError as error:
        refusals.append(error)
        print(error)


try_to_promote(small, "staging", at_least=0.9)  # too few digits
try_to_promote(large, "staging", at_least=0.9)
try_to_promote(small, "staging", at_least=0.5)  # good enough, but worse than what is there

# COMMAND ----------

# MAGIC %md
# MAGIC Production is the same. A network of the notebooks before may have scored better: then it stays.

# COMMAND ----------

try_to_promote(large, "production", at_least=0.9)
client = mlflow.MlflowClient()
aliases = client.get_registered_model(MODEL).aliases
aliases

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. And back
# MAGIC
# MAGIC Versions stay in the registry, so the way back is one call, and no job's YAML changes. `lakemill compare` and
# MAGIC `lakemill promote` decide on predictions instead of one metric: see `11_traffic.py`.

# COMMAND ----------

found = client.search_model_versions(f"name = '{MODEL}'")
scores = {str(version.version): client.get_run(version.run_id).data.metrics for version in found}
scores
