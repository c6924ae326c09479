# Databricks notebook source
# MAGIC %md
# MAGIC # Train in PyTorch, straight from the table
# MAGIC
# MAGIC 1. the table's version becomes batches of tensors, without a copy,
# MAGIC 2. a small network learns the digits,
# MAGIC 3. image step and network are logged as one pipeline, and get the alias if they score well enough.
# MAGIC
# MAGIC It starts from the table of digits that `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`,
# MAGIC or the widget on Databricks, where the library comes first: `%pip install lakemill[mlflow,torch]`.

# COMMAND ----------

import os
from typing import Any

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

MODEL = "digits"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. Rows for training, rows for validation
# MAGIC
# MAGIC Both are of one version, which is pinned here. Every tenth file is held out.

# COMMAND ----------

from lakemill import FormatStep, ImageStep, ModelStep, Pipeline
from lakemill.training import log_training_data, make_spark_converter, promote

STEP = ImageStep(column="content", mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), output="pixels")
DIGITS = tuple(str(digit) for digit in range(10))
TRAIN = "path LIKE '%/digits/train/%' AND NOT path LIKE '%0.png'"
HELD_OUT = "path LIKE '%/digits/train/%' AND path LIKE '%0.png'"

train_rows = make_spark_converter(f"{LAKE}/images", where=TRAIN, images=STEP)
held_out = make_spark_converter(f"{LAKE}/images", where=HELD_OUT, images=STEP, version=train_rows.table.version)
len(train_rows), len(held_out), train_rows.table.version

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. The network learns
# MAGIC
# MAGIC The class index comes from the label, in a transform that gets arrays; its argument's annotation says so.

# COMMAND ----------

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import infer_signature
from torch import nn

from lakemill.training import TransformSpec


def with_class(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the digit as a number."""
    return arrays | {"digit": arrays["label"].astype(np.int64)}


COLUMNS = {
    "schema_fields": ["pixels", "label"],
    "transform_spec": TransformSpec(with_class, [("digit", np.int64, (), False)], removed_fields=["label"]),
}
EPOCHS, BATCH = 10, 64
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10)
)
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)


def train_one_epoch(batches: Any) -> float:
    """Return the mean loss of one iteration over a loader."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(batch["pixels"]), batch["digit"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def accuracy_on(batches: Any) -> float:
    """Return the share of right digits."""
    with torch.no_grad():
        right = torch.cat([network(batch["pixels"]).argmax(1) == batch["digit"] for batch in batches])
    return right.float().mean().item()


# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. One run: the data, the metrics, one model
# MAGIC
# MAGIC The run says which version of the table it saw. The pipeline holds the image step, so inference prepares images
# MAGIC as training did. The alias moves if the network scores well enough on the digits it never saw.

# COMMAND ----------

mlflow.set_tracking_uri(REGISTRY)
if mlflow.get_experiment_by_name(MODEL) is None:
    mlflow.create_experiment(MODEL, (Path(LAKE).absolute() / "artifacts").as_uri())
mlflow.set_experiment(MODEL)
with make_spark_converter(f"{LAKE}/images", where=HELD_OUT).make_loader(1, schema_fields=["content"]) as loader:
    example = pd.DataFrame(next(iter(loader)))
with (
    mlflow.start_run(run_name="pytorch"),
    train_rows.make_torch_dataloader(BATCH, shuffling_queue_capacity=2000, **COLUMNS) as training,
    held_out.make_torch_dataloader(BATCH, **COLUMNS) as validation,
    tempfile.TemporaryDirectory() as folder,
):
    log_training_data(train_rows)
    log_training_data(held_out, "validation")
    mlflow.log_params({"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 2e-3})
    for epoch in range(EPOCHS):
        mlflow.log_metric("loss", train_one_epoch(training), step=epoch)
        accuracy = accuracy_on(validation)
        mlflow.log_metric("validation_accuracy", accuracy, step=epoch)
    blank = np.zeros((1, 1, 8, 8), np.float32)
    signature = infer_signature(blank, network(torch.from_numpy(blank)).detach().numpy())
    kept = {"signature": signature, "serialization_format": "pickle", "pip_requirements": ["torch"]}
    mlflow.pytorch.save_model(network, f"{folder}/network", **kept)
    model = ModelStep(f"{folder}/network", outputs={"output": {"dtype": "float32", "shape": [10]}})
    logged = Pipeline((STEP, model, FormatStep("output", softmax=True, labels=DIGITS))).log(
        registered_model_name=MODEL, registry=REGISTRY, input_example=example
    )

promote(MODEL, logged.rpartition("/")[2], metric="validation_accuracy", at_least=0.9, registry=REGISTRY)
logged, accuracy
