# Databricks notebook source
# MAGIC %md
# MAGIC # ETL: from a folder of files to a table to train on
# MAGIC
# MAGIC 1. files into a table, with labels and thumbnails,
# MAGIC 2. grey pictures by `applyInPandas`, tried on ten rows first,
# MAGIC 3. the whole table, on trimmed columns, and joined again,
# MAGIC 4. small files into large ones.
# MAGIC
# MAGIC It starts from the files that `make demo` leaves in `./lake`. For another folder set `LAKEMILL_LAKE`, or the
# MAGIC widget on Databricks, where the library comes first: `%pip install lakemill plotly`.

# COMMAND ----------

import os

if "dbutils" in globals():
    dbutils.widgets.text("lake", "lake")  # noqa: F821 -- Databricks' own
    LAKE = dbutils.widgets.get("lake")  # noqa: F821
else:
    LAKE = os.environ.get("LAKEMILL_LAKE", "lake")

FOLDER, TILES, GREY = f"{LAKE}/files/tiles", f"{LAKE}/tiles", f"{LAKE}/tiles_grey"

# COMMAND ----------

# MAGIC %md
# MAGIC ## 1. Files into a table
# MAGIC
# MAGIC The demo's photographs, cut into tiles, stand for your files: a folder a label, as so many data sets have them.

# COMMAND ----------

from pathlib import Path

from PIL import Image

SIDE = 80
for photo in sorted(Path(f"{LAKE}/files/photos").glob("*.jpg")):
    picture = Image.open(photo)
    (Path(FOLDER) / photo.stem).mkdir(parents=True, exist_ok=True)
    for top in range(0, picture.height - SIDE + 1, SIDE):
        for left in range(0, picture.width - SIDE + 1, SIDE):
            tile = Path(FOLDER) / photo.stem / f"{top:03}_{left:03}.jpg"
            if not tile.exists():
                picture.crop((left, top, left + SIDE, top + SIDE)).save(tile, quality=90)

# COMMAND ----------

# MAGIC %md
# MAGIC Run this cell again: files that are in the table already stay as they are. The label is the folder's name, and
# MAGIC `label_index` its number, in the order of the names.

# COMMAND ----------

import lakemill
from lakemill import IngestConfig, ingest_images
from lakemill.engines.spark import tables

spark = lakemill.get_session("etl")
job = IngestConfig.load(
    name="tiles",
    source={"path": FOLDER, "label": "parent"},
    output={"table": TILES},
    thumbnails={"table": f"{TILES}_thumbnails", "size": 64},
)
ingested = ingest_images(job, spark, progress=print)
images = tables.read(spark, TILES)
counts = images.groupBy("label", "label_index").count().orderBy("label").toPandas()
counts

# COMMAND ----------

# MAGIC %md
# MAGIC ## 2. A function, tried on ten rows
# MAGIC
# MAGIC It takes and returns a frame of some rows, so it can be called here as Spark will call it there. Look at what it
# MAGIC does before a cluster does it a million times.

# COMMAND ----------

import io

import numpy as np
import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure


def to_grey(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the same rows with their pictures in grey."""
    import io

    from PIL import Image

    def grey(content: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("L").save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    return frame.assign(content=frame["content"].map(grey))


def side_by_side(before: list[bytes], after: list[bytes]) -> Figure:
    """Show pictures above what became of them."""
    pictures = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in (*before, *after)]
    figure = px.imshow(np.stack(pictures), facet_col=0, facet_col_wrap=len(before), height=300)
    figure.update_xaxes(visible=False).update_yaxes(visible=False).update_layout(margin={"t": 0, "b": 0})
    return figure.for_each_annotation(lambda note: note.update(text=""))


ten = images.select("path", "content").orderBy("path").limit(10).toPandas()
plotted = side_by_side(ten["content"].tolist(), to_grey(ten)["content"].tolist())
plotted

# COMMAND ----------

# MAGIC %md
# MAGIC ## 3. The whole table
# MAGIC
# MAGIC `applyInPandas` moves whole groups between workers, so it gets only the columns that it needs; the others are
# MAGIC joined to the result. Groups are slices of the table, small enough for a worker's memory.

# COMMAND ----------

from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

trimmed = images.select("path", "content")
grey = trimmed.groupBy(F.hash("path") % 8).applyInPandas(to_grey, "path string, content binary")
joined = images.drop("content", "length", "sha256", "mode").join(grey, "path").withColumn("length", F.length("content"))
tables.save(joined.repartition(8).write.mode("overwrite"), GREY)  # in small files, as a day of appends leaves them
before, after = images.agg(F.sum("length")).first()[0], tables.read(spark, GREY).agg(F.sum("length")).first()[0]
print(f"{before:,} bytes in colour, {after:,} in grey")

# COMMAND ----------

# MAGIC %md
# MAGIC The same as a job, in one pass, without shuffle and join, and with a quarantine for pictures that fail:
# MAGIC `lakemill transform` with `grayscale: true` (`conf/transform_images.yaml`).

# COMMAND ----------

# MAGIC %md
# MAGIC ## 4. Small files into large ones
# MAGIC
# MAGIC `lakemill optimize TABLE` does the same; as a command it needs no Spark. Images are compressed already, so their
# MAGIC column is not compressed again.

# COMMAND ----------

from lakemill.engines.spark.blob_tables import optimize_table

optimized = optimize_table(spark, GREY)
optimized

# COMMAND ----------

from deltalake import DeltaTable

history = [(entry["version"], entry["operation"]) for entry in DeltaTable(GREY).history()]
history
