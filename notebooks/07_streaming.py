# Databricks notebook source
# MAGIC %md
# MAGIC # Streaming: new rows and new models, without a restart
# MAGIC
# MAGIC 1. a table that grows, and a model,
# MAGIC 2. score the table as it grows, stop, and go on,
# MAGIC 3. move the model's alias: the next rows are scored by the new version, and older ones again.
# MAGIC
# MAGIC It starts from what `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`, or the widget on
# MAGIC Databricks, where the library comes first: `%pip install lakemill[mlflow,sklearn]`.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

IMAGES, ARRIVING, PREDICTIONS = f"{LAKE}/images", f"{LAKE}/arriving", f"{LAKE}/streaming"
NAME = "digits_live"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. A table that grows, and a model
# MAGIC
# MAGIC Here images arrive when we say so: the first forty of the demo's test images.

# COMMAND ----------

import lakemill
from lakemill.engines.spark import tables

spark = lakemill.get_session("streaming")
images = tables.read(spark, IMAGES).where("path LIKE '%/digits/test/%'").orderBy("sha256")


def arrive(start: int, count: int) -> None:
    """Append some of the images to the table that is scored."""
    some = images.offset(start).limit(count).coalesce(1)
    tables.save(some.write.mode("append"), ARRIVING)


if not tables.exists(spark, ARRIVING):
    arrive(0, 40)

# COMMAND ----------

import tempfile
from pathlib import Path

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression

from lakemill import FormatStep, ImageStep, ModelStep, Pipeline
from lakemill.pipelines.registry import mlflow_at

IMAGE = ImageStep(column="content", mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), layout="flat", output="pixels")


def train_and_register(rows: int) -> str:
    """Fit a classifier on some images, and move the alias to the pipeline around it."""
    train = tables.read(spark, IMAGES).where("path LIKE '%/digits/train/%'").orderBy("sha256").limit(rows).toArrow()
    pixels = np.stack(Pipeline((IMAGE,)).infer(train.select(["content"]))["out.pixels"].to_numpy())
    model = LogisticRegression(max_iter=500).fit(pixels, train["label"].to_numpy())
    with tempfile.TemporaryDirectory() as folder, mlflow_at(REGISTRY):
        mlflow.sklearn.save_model(
            model,
            Path(folder) / "classifier",
            signature=mlflow.models.infer_signature(pixels, model.predict_proba(pixels)),
            serialization_format="skops",
            pip_requirements=["scikit-learn", "skops"],
            pyfunc_predict_fn="predict_proba",
        )
        classify = ModelStep(f"{folder}/classifier", inputs={"input": "pixels"}, outputs={"output": "probabilities"})
        names = FormatStep(input="probabilities", labels=tuple(str(label) for label in model.classes_))
        return Pipeline((IMAGE, classify, names)).log(
            name=NAME, registered_model_name=NAME, alias="production", registry=REGISTRY
        )


train_and_register(rows=60)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. Score it as it grows
# MAGIC
# MAGIC As a job this has `trigger: 10 seconds` and goes on until SIGTERM:
# MAGIC `lakemill stream --config conf/predict_stream.yaml`. Here `available_now` scores what is there and ends, so that
# MAGIC the next cell can run. Both go on from the checkpoint: nothing is scored twice.

# COMMAND ----------

from lakemill import PredictConfig, predict_stream

config = PredictConfig.load(
    name="streaming",
    registry=REGISTRY,
    source={"table": ARRIVING, "columns": ["label"]},
    pipeline={"uri": f"models:/{NAME}@production"},
    output={"table": PREDICTIONS},
    trigger="available_now",
    rescore="changed",
)
first = predict_stream(config, spark, progress=print)
first

# COMMAND ----------

arrive(40, 10)
second = predict_stream(config, spark, progress=print)
second

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. A new model
# MAGIC
# MAGIC The alias moves to a version that was trained on more images. A running stream sees it before its next batch,
# MAGIC tries it on some rows first, and keeps the old one if it does not fit. With `rescore: changed` older rows
# MAGIC follow, newest first.

# COMMAND ----------

train_and_register(rows=1000)
arrive(50, 10)
third = predict_stream(config, spark, progress=print)
third

# COMMAND ----------

predictions = tables.read(spark, PREDICTIONS)
counts = predictions.groupBy("metadata.source_version", predictions.metadata.models[0].version.alias("model")).count()
counts.orderBy("source_version").toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC What the second version made better, from Delta's own history:

# COMMAND ----------

before = tables.read(spark, PREDICTIONS, version=2)
for name, table in (("before", before), ("after", predictions)):
    right = table.selectExpr("avg(double(out.label = label))").collect()[0][0]
    print(f"{name}: {right:.1%} of the labels are right")
