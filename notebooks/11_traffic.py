# Databricks notebook source
# MAGIC %md
# MAGIC # Several models: A/B, then shadow, then promotion
# MAGIC
# MAGIC 1. two versions of a model in the registry: one that saw few digits, one that saw more,
# MAGIC 2. an A/B test: each row to one of them,
# MAGIC 3. a shadow: the new one scores every row, and nobody sees it,
# MAGIC 4. a promotion, if the tables support it.
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
# MAGIC ## 1. Two versions
# MAGIC
# MAGIC Both read the pixels that the pipeline's own image step makes. Version 1 is in production.

# COMMAND ----------

import mlflow
import mlflow.sklearn
import numpy as np
from deltalake import DeltaTable
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sklearn.linear_model import LogisticRegression

from lakemill import ImageStep, LakemillError, Pipeline, PredictConfig, predict_table
from lakemill.predict.promotion import compare, promote

image = {"column": "content", "mode": "L", "size": [8, 8], "layout": "flat", "output": "pixels"}
rows = DeltaTable(f"{LAKE}/images").to_pandas(columns=["path", "label", "content", "length"])
rows = rows[rows["content"].str.len() == rows["length"]]
train = rows[rows["path"].str.contains("/digits/train/")].sample(frac=1, random_state=0)
step = ImageStep(mode="L", size=(8, 8), layout="flat", output="pixels")
pixels = np.stack(Pipeline((step,)).infer(train[["content"]])["out.pixels"])

mlflow.set_tracking_uri(REGISTRY)
mlflow.set_registry_uri(REGISTRY)
client = mlflow.MlflowClient()
signature = ModelSignature(
    Schema([TensorSpec(np.dtype("float32"), (-1, 64))]), Schema([TensorSpec(np.dtype("float64"), (-1, 10))])
)
versions = []
for count in (30, len(train)):
    classifier = LogisticRegression(max_iter=500).fit(pixels[:count], train["label"].to_numpy()[:count])
    logged = mlflow.sklearn.log_model(
        classifier,
        name="trial",
        registered_model_name="trial",
        signature=signature,
        serialization_format="skops",
        pip_requirements=["scikit-learn", "skops"],
        pyfunc_predict_fn="predict_proba",
    )
    versions.append(str(logged.registered_model_version))
client.set_registered_model_alias("trial", "production", versions[0])


def model(uri: str) -> dict[str, object]:
    """Return a model's arguments in a step."""
    return {"uri": uri, "inputs": {"input": "pixels"}, "outputs": {"output": "probabilities"}}


def job(name: str, models: dict[str, object]) -> PredictConfig:
    """Return a job over the test digits, on this machine."""
    labels = [str(label) for label in range(10)]
    return PredictConfig.load(
        name=name,
        registry=REGISTRY,
        source={"table": f"{LAKE}/images", "columns": ["label"], "where": "path LIKE '%/digits/test/%'"},
        pipeline={"steps": [{"image": image}, models, {"format": {"input": "probabilities", "labels": labels}}]},
        output={"table": f"{LAKE}/{name}"},
        engine={"name": "local"},
    )


# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. A/B: each row to one model
# MAGIC
# MAGIC A hash of the row's path says which: a row goes the same way in every run. Each share comes with its interval.

# COMMAND ----------

control, newer = model("models:/trial@production"), model(f"models:/trial/{versions[1]}")
split = {"control": control, "challengers": {"newer": newer}, "weights": {"control": 0.5, "newer": 0.5}}
ab = job("trial_ab", {"split": split})
print(predict_table(ab).summary())
arms = compare(ab)
print("\n".join(line for arm in arms for line in arm.lines()))

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. Shadow: all rows to both, one is seen
# MAGIC
# MAGIC `out` is the champion's, `out_newer` the challenger's. Images are decoded once.

# COMMAND ----------

shadow = job("trial_shadow", {"shadow": {"champion": control, "challengers": {"newer": newer}}})
print(predict_table(shadow).summary())
champion, challenger = compare(shadow)
print("\n".join([*champion.lines(), *challenger.lines()]))

# COMMAND ----------

# MAGIC %md
# MAGIC ## 4. Promotion
# MAGIC
# MAGIC Too much is asked for first, and the alias stays; then what the data supports. A table keeps both.

# COMMAND ----------

try:
    promote(shadow, "trial", versions[1], "production", ["accuracy>=0.9999"])
except LakemillError as error:
    refused = error
    print(error)

low = challenger.correct.interval[0]
promoted = promote(shadow, "trial", versions[1], "production", ["rows>=100", f"accuracy>={low - 0.01:.2f}"])
print(promoted.summary())
