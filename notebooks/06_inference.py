# Databricks notebook source
# MAGIC %md
# MAGIC # Inference in batch, whichever framework trained
# MAGIC
# MAGIC 1. ten rows here, with pictures,
# MAGIC 2. the table, as a job,
# MAGIC 3. the predictions.
# MAGIC
# MAGIC The job names an alias. Which version has it, and what trained that, stands in the predictions' metadata and in
# MAGIC its run: nothing here changes when the network is swapped.
# MAGIC
# MAGIC It starts from what `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`, or the widget on
# MAGIC Databricks, where the library comes first: `%pip install lakemill[mlflow] plotly` and what the model needs.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

MODEL = "models:/digits@production"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. Ten rows here
# MAGIC
# MAGIC The registered model is a whole pipeline, from a file's bytes to a label. MLflow loads it like any other model.

# COMMAND ----------

import io

import mlflow
import numpy as np
import plotly.express as px
from deltalake import DeltaTable
from PIL import Image

if REGISTRY:
    mlflow.set_tracking_uri(REGISTRY)
    mlflow.set_registry_uri(REGISTRY)
images = DeltaTable(f"{LAKE}/images").to_pandas(columns=["path", "label", "content", "length"])
# The demo has cut one image short; the job says so below, and a call here would raise.
images = images[images["path"].str.contains("/digits/test/") & (images["content"].str.len() == images["length"])]
ten = images.sort_values("path").iloc[:: len(images) // 10].head(10).reset_index(drop=True)
scored = mlflow.pyfunc.load_model(MODEL).predict(ten[["content"]])
captions = [f"{row['out.label']} ({row['out.probability']:.0%})" for _, row in scored.iterrows()]
pixels = np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in ten["content"]])
gallery = px.imshow(pixels, facet_col=0, facet_col_wrap=5, height=460)
for note, caption in zip(reversed(gallery.layout.annotations), reversed(captions), strict=True):
    note.text = caption
gallery.update_xaxes(visible=False).update_yaxes(visible=False)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. The table
# MAGIC
# MAGIC The same text runs as a job: `lakemill predict --config lake/inference.yaml`. Run this cell again: there is
# MAGIC nothing new, so nothing is scored. Add images, and only they are; swap the model, and with `rescore: changed`
# MAGIC all are.

# COMMAND ----------

from pathlib import Path

from lakemill import PredictConfig, predict_table

JOB = f"""\
name: inference
registry: {REGISTRY or "databricks"}
source:
  table: {LAKE}/images
  where: path LIKE '%/digits/test/%'
  key: [path]
  columns: [label]
pipeline: {{uri: {MODEL}}}
output: {{table: {LAKE}/inference}}
rescore: changed
"""
file = Path(f"{LAKE}/inference.yaml")
file.write_text(JOB, encoding="utf-8")
config = PredictConfig.load(file)
done = predict_table(config, progress=print)
done

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. The predictions
# MAGIC
# MAGIC Every source row has exactly one row: its result in `out`, or the reason why there is none in `error`.

# COMMAND ----------

predictions = DeltaTable(f"{LAKE}/inference").to_pandas()
results = predictions[predictions["error"].isna()]
labels = results["out"].str["label"]
accuracy = float((labels == results["label"]).mean())
models = {(model["name"], model["version"]) for model in results["metadata"].str["models"].str[0]}
print(
    f"{len(predictions)} rows, {len(predictions) - len(results)} with an error; {accuracy:.1%} of the others are right"
)
models

# COMMAND ----------

predictions[predictions["error"].notna()][["path", "error"]]

# COMMAND ----------

pairs = results.assign(predicted=labels).groupby(["label", "predicted"]).size().unstack(fill_value=0)
px.imshow(pairs, text_auto=True, height=500)

# COMMAND ----------

# MAGIC %md
# MAGIC The whole story as one page that opens offline:

# COMMAND ----------

from lakemill.report.page import write_report

report = write_report(config)
print(report)
