"""A narrow table of thumbnails beside a table of images, for browsing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lakemill.config.row_files import recorded_roots
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import append, ensure_table, merge, spark_schema
from lakemill_udfs.files import RowFiles
from lakemill_udfs.images.files import Limits
from lakemill_udfs.images.thumbnails import THUMBNAILS, make_thumbnails

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill.config.ingest import Thumbnails


def add_thumbnails(
    spark: SparkSession, images: str, thumbnails: Thumbnails, limits: Limits, say: Callable[[str], None]
) -> None:
    """Make a thumbnail for each image that has none yet or another content than its thumbnail.

    Args:
        spark: The session.
        images: The table of images.
        thumbnails: The table of thumbnails and their size.
        limits: What one image may cost.
        say: Called with one line of text for each stage.

    Raises:
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
    """
    from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

    table = thumbnails.table
    ensure_table(spark, table, THUMBNAILS)
    rows, there = tables.read(spark, images), tables.read(spark, table)
    missing = rows.select("path", "sha256", "modification_time").join(there, ["path", "sha256"], "left_anti")
    stale = there.select("path", F.lit(1).alias("stale"))
    count, replaced, oldest = (
        missing.join(stale, "path", "left").agg(F.count("*"), F.count("stale"), F.min("modification_time")).collect()[0]
    )
    if not count:
        return
    say(f"Making {count:,} thumbnails ...")
    # Files that hold older images only are skipped by their statistics; the join alone would read every image.
    recent = rows if oldest is None else rows.where(F.col("modification_time") >= F.lit(oldest))
    wanted = recent.join(F.broadcast(missing.select("path", "sha256")), ["path", "sha256"], "left_semi")
    files = RowFiles(recorded_roots(tables.detail(spark, images)["properties"]), limits.max_bytes)
    made = wanted.select("path", "sha256", "content").mapInArrow(
        partial(make_thumbnails, size=thumbnails.size, files=files, limits=limits), spark_schema(spark, THUMBNAILS)
    )
    if replaced:
        merge(made, table, "path")
    else:
        append(made, table)
