"""``<table>_quarantine``: the files that are no usable image as they are now, one row a path, with the reason."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.engine import Engine
from lakemill.engines.output_tables import ensure_table
from lakemill.ingest.listing import KEY
from lakemill_udfs.images.rows import REJECTED, TIME

QUARANTINE = pa.schema([*REJECTED, ("time", TIME)])
"""The quarantine table; ``time`` is when the file was rejected (UTC)."""

RETRY = ["FILE_TOO_LARGE", "IMAGE_TOO_MANY_PIXELS", "IMAGE_TOO_LARGE", "FILE_UNREADABLE", "IMAGE_EXTRA_MISSING"]
"""Codes that may be gone at the next run although the file is the same: limits, permissions and what is installed."""


def read_rejected(engine: Engine, table: str) -> pl.DataFrame:
    """Return ``KEY`` and ``code`` of the files in the quarantine."""
    there = engine.snapshot(table_names.sibling(table, "_quarantine"))
    if there is None:
        return pl.DataFrame(QUARANTINE.empty_table()).select(*KEY, "code")
    return pl.DataFrame(engine.rows(there).select([*KEY, "code"]).to_arrow())


def update_quarantine(
    engine: Engine, table: str, known: pl.DataFrame, rejected: pl.DataFrame, good: pl.DataFrame
) -> None:
    """Add the files rejected now, replace what was said of them before, and take out those that are good now.

    Args:
        engine: Where the job runs.
        table: The table of images.
        known: The quarantine as ``read_rejected`` found it.
        rejected: ``REJECTED``.
        good: Has the ``path`` of each listed file that is in the table as it is.

    Raises:
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
    """
    name = table_names.sibling(table, "_quarantine")
    mended = known.join(good, on="path", how="semi").select("path")
    if rejected.is_empty() and mended.is_empty():
        return
    ensure_table(engine, name, QUARANTINE)
    now = pl.lit(datetime.now(UTC), pl.Datetime("us", "UTC"))
    rows = engine.given(rejected.with_columns(time=now).to_arrow())
    engine.merge(rows, name, ["path"], gone=engine.given(mended.to_arrow()))
