# Databricks notebook source
# MAGIC %md
# MAGIC # Quickstart: score a table of images
# MAGIC
# MAGIC 1. look at the images,
# MAGIC 2. score ten of them here, on the driver,
# MAGIC 3. score the table,
# MAGIC 4. read the predictions.
# MAGIC
# MAGIC It starts from what `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`, or the widget on
# MAGIC Databricks, where the library comes first: `%pip install lakemill[mlflow,sklearn] plotly`.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

IMAGES, PREDICTIONS = f"{LAKE}/images", f"{LAKE}/quickstart"
MODEL = "models:/digits@production"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. Look at the images
# MAGIC
# MAGIC Each row is one file: its bytes, and beside them what can be filtered without touching the bytes.

# COMMAND ----------

import lakemill
from lakemill.engines.spark import tables

spark = lakemill.get_session("quickstart")
images = tables.read(spark, IMAGES)
images.drop("content").limit(5).toPandas()

# COMMAND ----------

import io

import numpy as np
import plotly.express as px
from PIL import Image
from plotly.graph_objects import Figure


def gallery(contents: list[bytes], titles: list[str]) -> Figure:
    """Show images of one size side by side, five in a row."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])
    figure = px.imshow(pixels, facet_col=0, facet_col_wrap=5, height=460)
    for note, title in zip(reversed(figure.layout.annotations), reversed(titles), strict=True):
        note.text = title
    return figure.update_xaxes(visible=False).update_yaxes(visible=False).update_layout(margin={"t": 30, "b": 0})


# The demo has cut one image short; what happens to it is shown below.
whole = images.where("path LIKE '%/digits/test/%' AND length(content) = length")
ten = whole.orderBy("sha256").limit(10).toPandas()
gallery(ten["content"].tolist(), ten["label"].tolist())

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. Score ten rows here
# MAGIC
# MAGIC The registered model is a whole pipeline, from a file's bytes to a label. MLflow loads it like any other model.

# COMMAND ----------

import mlflow

if REGISTRY:
    mlflow.set_tracking_uri(REGISTRY)
    mlflow.set_registry_uri(REGISTRY)
pipeline = mlflow.pyfunc.load_model(MODEL)
scored = pipeline.predict(ten[["content"]])
scored

# COMMAND ----------

captions = [f"{row['out.label']} ({row['out.probability']:.0%})" for _, row in scored.iterrows()]
gallery(ten["content"].tolist(), captions)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. Score the table
# MAGIC
# MAGIC Run this cell again: there is nothing new, so nothing is scored. Add images, and only they are.

# COMMAND ----------

from lakemill import PredictConfig, predict_table

config = PredictConfig.load(
    name="quickstart",
    registry=REGISTRY,
    source={"table": IMAGES, "where": "path LIKE '%/digits/test/%'", "key": ["path"], "columns": ["label"]},
    pipeline={"uri": MODEL},
    output={"table": PREDICTIONS},
)
result = predict_table(config, spark, progress=print)
result

# COMMAND ----------

# MAGIC %md
# MAGIC ## 4. Read the predictions
# MAGIC
# MAGIC Every source row has exactly one row: its result in `out`, or the reason why there is none in `error`.

# COMMAND ----------

predictions = tables.read(spark, PREDICTIONS)
columns = ("path", "label", "out.label AS predicted", "out.probability", "error.code AS error")
predictions.selectExpr(*columns).orderBy("error", ascending=False).limit(10).toPandas()

# COMMAND ----------

counts = predictions.selectExpr("count(*)", "count(error)", "avg(double(out.label = label))")
rows, errors, accuracy = counts.collect()[0]
print(f"{rows} rows, {errors} with an error; {accuracy:.1%} of the others are right")

# COMMAND ----------

counted = predictions.where("error IS NULL").groupBy("label", "out.label").count()
pairs = counted.toDF("is", "predicted", "rows").toPandas()
px.imshow(pairs.pivot_table(index="is", columns="predicted", values="rows", fill_value=0), text_auto=True)

# COMMAND ----------

# MAGIC %md
# MAGIC The whole story as one page that opens offline:

# COMMAND ----------

from lakemill.report.page import write_report

report = write_report(config, spark)
print(report)
