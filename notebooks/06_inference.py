# Databricks notebook source
# MAGIC %md
# MAGIC # Inference, whichever framework trained
# MAGIC
# MAGIC The job names the alias. Which version has it, and what trained that, stands in the predictions' metadata and in
# MAGIC its run: nothing in this notebook changes when the network is swapped.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

REGISTRY = f"sqlite:///{LAKE}/mlflow.db"  # None on Databricks: its own registry

# COMMAND ----------

from lakemill import PredictConfig, predict_table

config = PredictConfig.model_validate(
    {
        "name": "networks",
        "registry": REGISTRY,
        "source": {
            "table": f"{LAKE}/images",
            "where": "path LIKE '%/digits/test/%'",
            "key": ["path"],
            "columns": ["path", "label"],
        },
        "pipeline": {"uri": "models:/digits-network@production"},
        "output": {"table": f"{LAKE}/network_predictions"},
        "mode": "full",
        "engine": {"name": "local"},
    }
)
done = predict_table(config)
done.rows, done.rows_error

# COMMAND ----------

from deltalake import DeltaTable

predictions = DeltaTable(f"{LAKE}/network_predictions").to_pandas()
scored = predictions[predictions["error"].isna()]
right = sum(str(out["label"]) == label for out, label in zip(scored["out"], scored["label"], strict=True))
version = {models[0]["version"] for models in predictions["metadata"].str["models"]}
right / len(scored), version
