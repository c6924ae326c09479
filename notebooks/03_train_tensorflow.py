# Databricks notebook source
# MAGIC %md
# MAGIC # Train in TensorFlow, on the same rows
# MAGIC
# MAGIC The converter is the one of the notebook before; only the framework differs, and inference does not notice.
# MAGIC
# MAGIC It starts from the table of digits that `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`,
# MAGIC or the widget on Databricks, where the library comes first: `%pip install lakemill[mlflow,tensorflow]`.

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

from lakemill import FormatStep, ImageStep, ModelStep, Pipeline
from lakemill.training import log_training_data, make_spark_converter, promote

STEP = ImageStep(column="content", mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), layout="flat", output="pixels")
DIGITS = tuple(str(digit) for digit in range(10))
TRAIN = "path LIKE '%/digits/train/%' AND NOT path LIKE '%0.png'"
HELD_OUT = "path LIKE '%/digits/train/%' AND path LIKE '%0.png'"

train_rows = make_spark_converter(f"{LAKE}/images", where=TRAIN, images=STEP)
held_out = make_spark_converter(f"{LAKE}/images", where=HELD_OUT, images=STEP, version=train_rows.table.version)
len(train_rows), len(held_out), train_rows.table.version

# COMMAND ----------

# MAGIC %md
# MAGIC ## The network learns
# MAGIC
# MAGIC An element is a named tuple; `fit` takes `(inputs, targets)`, so a `map` picks them. One iteration is one epoch.

# COMMAND ----------

import tempfile
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import tensorflow as tf
from mlflow.models import infer_signature


def inputs_and_digit(row: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what `fit` takes."""
    return row.pixels, tf.strings.to_number(row.label, tf.int64)


keras.utils.set_random_seed(0)
network = keras.Sequential([keras.Input((64,), name="pixels"), keras.layers.Dense(10, name="logits")])
network.compile(
    optimizer=keras.optimizers.Adam(5e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## One run: the data, the metrics, one model
# MAGIC
# MAGIC MLflow's callback logs what Keras measures; the model is logged once, as a pipeline with its image step.

# COMMAND ----------

mlflow.set_tracking_uri(REGISTRY)
if mlflow.get_experiment_by_name(MODEL) is None:
    mlflow.create_experiment(MODEL, (Path(LAKE).absolute() / "artifacts").as_uri())
mlflow.set_experiment(MODEL)
with make_spark_converter(f"{LAKE}/images", where=HELD_OUT).make_loader(1, schema_fields=["content"]) as loader:
    example = pd.DataFrame(next(iter(loader)))
COLUMNS = {"schema_fields": ["pixels", "label"]}
with (
    mlflow.start_run(run_name="tensorflow"),
    train_rows.make_tf_dataset(64, shuffling_queue_capacity=2000, **COLUMNS) as training,
    held_out.make_tf_dataset(64, **COLUMNS) as validation,
    tempfile.TemporaryDirectory() as folder,
):
    log_training_data(train_rows)
    log_training_data(held_out, "validation")
    history = network.fit(
        training.map(inputs_and_digit),
        validation_data=validation.map(inputs_and_digit),
        epochs=10,
        verbose=0,
        callbacks=[mlflow.tensorflow.MlflowCallback()],
    )
    accuracy = history.history["val_accuracy"][-1]
    mlflow.log_metric("validation_accuracy", accuracy)
    blank = np.zeros((1, 64), np.float32)
    signature = infer_signature(blank, network.predict(blank, verbose=0))
    kept = {"signature": signature, "pip_requirements": ["tensorflow"]}
    mlflow.tensorflow.save_model(network, f"{folder}/network", **kept)
    model = ModelStep(f"{folder}/network", outputs={"output": {"dtype": "float32", "shape": [10]}})
    logged = Pipeline((STEP, model, FormatStep("output", softmax=True, labels=DIGITS))).log(
        registered_model_name=MODEL, registry=REGISTRY, input_example=example
    )

promote(MODEL, logged.rpartition("/")[2], metric="validation_accuracy", at_least=0.8, registry=REGISTRY)
logged, accuracy
