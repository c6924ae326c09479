"""``<table>_quarantine``: the files that are no usable image as they are now, one row a path, with the reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import append, ensure_table, merge
from lakemill.ingest.listing import KEY
from lakemill_udfs.images.rows import REJECTED, TIME

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

QUARANTINE = pa.schema([*REJECTED, ("time", TIME)])
"""The quarantine table; ``time`` is when the file was rejected (UTC)."""

RETRY = ["FILE_TOO_LARGE", "IMAGE_TOO_MANY_PIXELS", "FILE_UNREADABLE"]
"""Codes that may be gone at the next run although the file is the same: limits and permissions change."""


def read_rejected(spark: SparkSession, table: str) -> pl.DataFrame:
    """Return ``KEY`` and ``code`` of the files in the quarantine."""
    name = table_names.sibling(table, "_quarantine")
    if not tables.exists(spark, name):
        return pl.DataFrame(QUARANTINE.empty_table()).select(*KEY, "code")
    return pl.DataFrame(spark.table(tables.sql_name(name)).select(*KEY, "code").toArrow())


def update_quarantine(
    spark: SparkSession, table: str, known: pl.DataFrame, rejected: pl.DataFrame, good: pl.DataFrame
) -> None:
    """Add the files rejected now, replace what was said of them before, and take out those that are good now.

    Args:
        spark: The session.
        table: The table of images.
        known: The quarantine as ``read_rejected`` found it.
        rejected: ``REJECTED``.
        good: Has the ``path`` of each listed file that is in the table as it is.

    Raises:
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
    """
    name = table_names.sibling(table, "_quarantine")
    mended = known.join(good, on="path", how="semi").select("path")
    now = pl.lit(datetime.now(UTC), pl.Datetime("us", "UTC"))
    changes = pl.concat([rejected, mended], how="diagonal").with_columns(time=now)
    if changes.is_empty():
        return
    ensure_table(spark, name, QUARANTINE)
    rows = spark.createDataFrame(changes.to_arrow())
    if changes.join(known, on="path", how="semi").is_empty():
        append(rows, name)
    else:
        merge(rows, name, "path", delete="(s.code IS NULL)")
