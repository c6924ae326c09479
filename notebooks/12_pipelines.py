# Databricks notebook source
# MAGIC %md
# MAGIC # Pipelines: from a column to a result
# MAGIC
# MAGIC 1. a registered pipeline is steps and checks, in YAML,
# MAGIC 2. it runs here, on whatever form your data has,
# MAGIC 3. steps of your own, checks, and formatted outputs,
# MAGIC 4. what would happen: the plan,
# MAGIC 5. the same pipeline on Spark, and a second one on its result.
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

REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. A pipeline is a value
# MAGIC
# MAGIC Data passes from step to step by name. What no later step reads is the result, `out`.

# COMMAND ----------

import lakemill
from lakemill import Check, FormatStep, ImageStep, Pipeline, PythonStep
from lakemill.engines.spark import tables

digits = Pipeline.load("models:/digits@production", REGISTRY)
print(digits.to_yaml())

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. Run it here
# MAGIC
# MAGIC pandas in, pandas out; Arrow in, Arrow out; a dict in, a dict out. No Spark is needed for this.

# COMMAND ----------

spark = lakemill.get_session("pipelines")
images = tables.read(spark, f"{LAKE}/images").where("path LIKE '%/digits/test/%' AND length(content) = length")
ten = images.select("path", "label", "content").orderBy("sha256").limit(10).toPandas()
scored = digits.infer(ten, dataset=["out", "anomaly"], registry=REGISTRY)
scored

# COMMAND ----------

# MAGIC %md
# MAGIC A tensor may come in many forms. They all give the same; `docs/data.md` says what each costs.

# COMMAND ----------

import numpy as np
import pandas as pd
import pyarrow as pa

scores = np.random.default_rng(0).random((4, 3), dtype="float32")
forms = {
    "dict of an array": {"scores": scores},
    "dict of nested lists": {"scores": scores.tolist()},
    "pandas, a list in each cell": pd.DataFrame({"scores": scores.tolist()}),
    "pandas, an array in each cell": pd.DataFrame({"scores": list(scores)}),
    "Arrow lists": pa.table({"scores": scores.tolist()}),
    "Arrow tensors": pa.table({"scores": pa.FixedShapeTensorArray.from_numpy_ndarray(scores)}),
}
tags = Pipeline((FormatStep("scores", threshold=0.5, labels=("low", "middle", "high")),))
results = {form: pa.array(tags.infer(data)["out.labels"]).to_pylist() for form, data in forms.items()}
results["dict of an array"]

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. Steps of your own, checks, formatted outputs
# MAGIC
# MAGIC A function takes and returns a dict of arrays; with `frame: pd.DataFrame` or `table: pa.Table` it gets that.
# MAGIC A check is a Polars expression on `in` and `out`, as SQL or from a function. It flags rows and drops none.
# MAGIC What would depend on the batching, such as a mean over rows, is refused.

# COMMAND ----------

import polars as pl
from numpy.typing import NDArray


def trace(inputs: dict[str, NDArray]) -> dict[str, NDArray]:
    """Say how much ink a digit has, and where."""
    ink = inputs["pixels"][..., 0]
    return {"ink": ink.mean(axis=(1, 2)), "where": (ink > 100).astype("uint8") * 255}


own = Pipeline(
    steps=(
        ImageStep(column="content", mode="L", size=(8, 8), dtype="uint8", layout="NHWC", output="pixels"),
        PythonStep(trace, outputs={"ink": {"dtype": "float64"}, "where": {"dtype": "uint8", "shape": [8, 8]}}),
        FormatStep("where", encode="png"),
        FormatStep("ink", threshold=80, labels=("thin", "bold"), outputs={"above": None, "label": "weight"}),
    ),
    checks=(Check("faint", "out.ink < 40"), Check("full", lambda: pl.col("out").struct.field("ink") > 200)),
    outputs=("ink", "weight", "where"),
)
traced = own.infer(ten, dataset=["out", "anomaly"])
traced.drop(columns="out.where")

# COMMAND ----------

# MAGIC %md
# MAGIC `trace` lives in this notebook, where no worker can find it. So it works here and is refused where it would have
# MAGIC to travel: put it into a module, and name it `module:function`.

# COMMAND ----------

try:
    own.to_yaml()
except lakemill.ConfigError as error:
    refused = error
print(refused)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 4. What would happen
# MAGIC
# MAGIC The plan scores nothing. It shows each input's column, form and conversion, the result's columns, batch sizes,
# MAGIC the versions behind aliases, and every problem at once. For a job: `lakemill plan --config F`.

# COMMAND ----------

from dataclasses import replace

careful = replace(digits, checks=(*digits.checks, Check("unsure", "out.probability < 0.6")))
plan = careful.plan(images, registry=REGISTRY)
print(plan)

# COMMAND ----------

# MAGIC %md
# MAGIC ## 5. On Spark
# MAGIC
# MAGIC The same numbers, one row for each source row, with a reason in `error` where there is no result.

# COMMAND ----------

predicted = careful.transform(images, columns=["path", "label"], registry=REGISTRY)
predicted.write.format("delta").mode("overwrite").save(f"{LAKE}/pipelines")
tables.read(spark, f"{LAKE}/pipelines").createOrReplaceTempView("predicted")
unsure = spark.sql("""
    SELECT path, label, out.label AS predicted, out.probability
    FROM predicted WHERE anomaly.unsure ORDER BY out.probability LIMIT 10
""").toPandas()
unsure

# COMMAND ----------

# MAGIC %md
# MAGIC What is `out.probability` in a result is called so by the next pipeline, here and on Spark; tensors keep their
# MAGIC dtype and shape through Delta.

# COMMAND ----------

certain = Pipeline((FormatStep("out.probability", threshold=0.99, labels=("look again", "certain")),))
counts = certain.transform(spark.table("predicted")).groupBy("out.label").count().toPandas()
counts
