# Databricks notebook source
# MAGIC %md
# MAGIC # Train on several processes
# MAGIC
# MAGIC Spark's `TorchDistributor` starts them; each reads its shard of one version of the table, and all have as many
# MAGIC batches.
# MAGIC
# MAGIC It starts from the table of digits that `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`,
# MAGIC or the widget on Databricks, where the library comes first: `%pip install lakemill[torch]`.

# COMMAND ----------

import os
from typing import Any

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

# COMMAND ----------

# MAGIC %md
# MAGIC ## What each process does
# MAGIC
# MAGIC The converter that it gets reads the rows of its rank. Gradients are averaged after each batch.

# COMMAND ----------

from lakemill import ImageStep
from lakemill.training import SparkDatasetConverter, distribute, make_spark_converter


def train(converter: SparkDatasetConverter, epochs: int) -> dict[str, Any]:
    """Return the network's weights, its last loss and the rows that this rank saw."""
    import torch
    import torch.distributed as processes
    from torch import nn

    processes.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.manual_seed(0)
    network = nn.parallel.DistributedDataParallel(nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    rows = 0
    with converter.make_torch_dataloader(
        64, num_epochs=epochs, schema_fields=["pixels", "label"], shuffling_queue_capacity=2000
    ) as loader:
        for batch in loader:
            optimizer.zero_grad()
            digits = torch.tensor([int(label) for label in batch["label"]])
            loss = nn.functional.cross_entropy(network(batch["pixels"]), digits)
            loss.backward()
            optimizer.step()
            rows += len(digits)
    processes.destroy_process_group()
    return {"weights": network.module.state_dict(), "loss": loss.item(), "rows": rows}


# COMMAND ----------

# MAGIC %md
# MAGIC ## Two of them
# MAGIC
# MAGIC On a cluster `local_mode=False` puts each into a task of its own. What rank 0 returns comes back here; so MLflow
# MAGIC logs once, from here.

# COMMAND ----------

step = ImageStep(column="content", mode="L", size=(8, 8), mean=(0.5,), std=(0.25,), layout="flat", output="pixels")
rows = make_spark_converter(f"{LAKE}/images", where="path LIKE '%/digits/train/%'", images=step)
trained = distribute(train, 2, 3, table=rows, local_mode=True)
trained["loss"], trained["rows"], len(rows)
