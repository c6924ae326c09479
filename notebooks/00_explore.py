# Databricks notebook source
# MAGIC %md
# MAGIC # Explore: what is in a folder, what is in a table
# MAGIC
# MAGIC 1. thumbnails from a folder of files,
# MAGIC 2. thumbnails from a table,
# MAGIC 3. what the small columns say, without touching an image.
# MAGIC
# MAGIC It starts from what `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`, or the widget on
# MAGIC Databricks, where the library comes first: `%pip install lakemill plotly`.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

FOLDER, IMAGES = f"{LAKE}/files", f"{LAKE}/images"

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. A folder
# MAGIC
# MAGIC Some files in it are no usable image, whatever their names say: they would stop a training in its fourth hour.
# MAGIC Ingest finds them out and puts them aside; the end of this notebook lists them.

# COMMAND ----------

import io
from pathlib import Path

import numpy as np
import plotly.express as px
from PIL import Image
from plotly.graph_objects import Figure


def gallery(contents: list[bytes], titles: list[str]) -> Figure:
    """Show thumbnails side by side, five in a row."""
    opened = [Image.open(io.BytesIO(content)).convert("RGB").resize((96, 96)) for content in contents]
    figure = px.imshow(np.stack([np.asarray(image) for image in opened]), facet_col=0, facet_col_wrap=5, height=460)
    for note, title in zip(reversed(figure.layout.annotations), reversed(titles), strict=True):
        note.text = title
    return figure.update_xaxes(visible=False).update_yaxes(visible=False).update_layout(margin={"t": 30, "b": 0})


photos, digits = sorted(Path(FOLDER, "photos").iterdir()), sorted(Path(FOLDER, "digits", "train").glob("?/????.png"))
shown = [*photos, *digits[:: len(digits) // 8]][:10]
from_folder = gallery([path.read_bytes() for path in shown], [path.name for path in shown])
from_folder

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. A table
# MAGIC
# MAGIC Each row is one file: its bytes, and beside them what can be filtered without touching the bytes.

# COMMAND ----------

import lakemill
from lakemill.engines.spark import tables

spark = lakemill.get_session("explore")
images = tables.read(spark, IMAGES)
images.drop("content").limit(5).toPandas()

# COMMAND ----------

# The demo has cut one image short; what becomes of it is seen where the table is scored.
whole = images.where("length(content) = length")
ten = whole.orderBy("sha256").limit(10).toPandas()
from_table = gallery(ten["content"].tolist(), ten["label"].tolist())
from_table

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. The small columns
# MAGIC
# MAGIC Delta keeps statistics of them, so a filter opens only files that can hold such rows.

# COMMAND ----------

labels = images.groupBy("label").count().orderBy("label").toPandas()
px.bar(labels, x="label", y="count", height=300)

# COMMAND ----------

aside = tables.read(spark, f"{IMAGES}_quarantine").select("path", "code").toPandas()
aside.assign(path=aside["path"].str.rsplit("/", n=1).str[-1])
