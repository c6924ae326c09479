# Databricks notebook source
# MAGIC %md
# MAGIC # Time travel: the rows that trained, and a prediction, once more
# MAGIC
# MAGIC 1. the table goes on,
# MAGIC 2. what a version of the model was trained on, re-created from its run,
# MAGIC 3. a prediction, re-created from its own row.
# MAGIC
# MAGIC It starts from what `02_train_pytorch.py`, `03_train_tensorflow.py` or `05_registry.py`, and then
# MAGIC `06_inference.py`, leave in `./lake`. For another folder set `LAKEMILL_LAKE`, or the widget on Databricks, where
# MAGIC the library comes first: `%pip install lakemill[mlflow]` and what the model needs.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

IMAGES, MODEL = f"{LAKE}/images", "digits"
REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. The table goes on
# MAGIC
# MAGIC Ten more labelled digits arrive. Whoever trains today sees them; what was trained before did not.

# COMMAND ----------

import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

table = DeltaTable(IMAGES)
rows = table.to_pyarrow_table()
sevens = pc.match_substring_regex(rows["path"], "/digits/test/7/.*[1-9]\\.png$")  # names that no split holds out
more = rows.filter(sevens).sort_by("path").slice(0, 10)
later = pc.replace_substring(more["path"], "/digits/test/7/", "/digits/train/7/later_")
if not pc.any(pc.match_substring(rows["path"], "/later_")).as_py():
    write_deltalake(IMAGES, more.set_column(more.schema.get_field_index("path"), "path", later), mode="append")
now = DeltaTable(IMAGES).version()
now

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. What it was trained on
# MAGIC
# MAGIC The version in production knows its run, and the run the table's version, the filter and the image step.

# COMMAND ----------

import mlflow

from lakemill.training import make_spark_converter, training_data_of

if REGISTRY:
    mlflow.set_tracking_uri(REGISTRY)
    mlflow.set_registry_uri(REGISTRY)
client = mlflow.MlflowClient()
production = client.get_model_version_by_alias(MODEL, "production")
trained_on = training_data_of(production.run_id)
today = make_spark_converter(IMAGES, where=trained_on.table.where, images=trained_on.images)
print(f"{len(trained_on)} rows of version {trained_on.table.version} then, {len(today)} of version {now} now")

# COMMAND ----------

# The same rows in the same order, so a training can be done again, or another one be compared on equal terms.
with trained_on.make_loader(10, schema_fields=["pixels", "label"]) as loader:
    batch = next(iter(loader))
batch["pixels"].shape, batch["label"].tolist()

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. A prediction, once more
# MAGIC
# MAGIC Its row says the version of the source that it read and the version of the model.

# COMMAND ----------

from lakemill import Pipeline

predictions = DeltaTable(f"{LAKE}/inference").to_pandas()
before = predictions[predictions["error"].isna()].sort_values("path").iloc[0]
version = before["metadata"]["models"][0]["version"]
source = DeltaTable(IMAGES, version=before["metadata"]["source_version"]).to_pandas(columns=["path", "content"])
given = source[source["path"] == before["path"]]
pipeline = Pipeline.load(f"models:/{MODEL}/{version}", REGISTRY)
again = pipeline.infer(given[["content"]], dataset=["out"], registry=REGISTRY).to_dict("records")[0]
print(f"version {version}, then: {before['out']['label']} with {before['out']['probability']:.6f}")
print(f"version {version}, now:  {again['out.label']} with {again['out.probability']:.6f}")
