"""A narrow table of thumbnails beside a table of images, for browsing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from lakemill.config.row_files import recorded_roots
from lakemill.engines.conditional import TableState
from lakemill.engines.engine import Engine, opened
from lakemill.engines.marks import JOBS
from lakemill.engines.output_tables import ensure_table
from lakemill_udfs.files import RowFiles
from lakemill_udfs.images.files import Limits
from lakemill_udfs.images.thumbnails import THUMBNAILS, make_thumbnails

if TYPE_CHECKING:
    import pyarrow as pa

    from lakemill.config.ingest import Thumbnails

APP = f"{JOBS}ingest"
"""Of the transactions of all ingest jobs: of two that chose files from the same state of a table only one commits."""

IDENTITY = ["path", "sha256"]


def add_thumbnails(
    engine: Engine, images: str, thumbnails: Thumbnails, limits: Limits, say: Callable[[str], None]
) -> None:
    """Make a thumbnail for each image that has none yet or another content than its thumbnail.

    Args:
        engine: Where the job runs.
        images: The table of images.
        thumbnails: The table of thumbnails and their size.
        limits: What one image may cost.
        say: Called with one line of text for each stage.

    Raises:
        TableError: ``TABLE_SCHEMA`` or ``TABLE_NOT_WRITABLE``.
    """
    table = thumbnails.table
    ensure_table(engine, table, THUMBNAILS)
    state, source = TableState.read(engine, table, APP), opened(engine, images)
    rows, there = engine.rows(source), engine.rows(opened(engine, table))
    missing = rows.select([*IDENTITY, "modification_time"]).without(there, IDENTITY).to_arrow()
    if not missing.num_rows:
        return
    say(f"Making {missing.num_rows:,} thumbnails ...")
    known = engine.given(missing.select(IDENTITY))
    # Files that hold older images only are skipped by their statistics; the join alone would read every image.
    oldest = _oldest(missing)
    recent = rows if oldest is None else rows.where(f"modification_time >= TIMESTAMP '{oldest.isoformat(' ')}'")
    wanted = recent.only(known, IDENTITY).select([*IDENTITY, "content"])
    files = RowFiles(recorded_roots(source.properties), limits.max_bytes)
    made = wanted.map(partial(make_thumbnails, size=thumbnails.size, files=files, limits=limits), THUMBNAILS)
    if there.only(known, ["path"]).is_empty():
        state.commit(lambda own: engine.append(made, table, own), is_needed=False, looks=False)
    else:
        state.commit(lambda own: engine.merge(made, table, ["path"], own), is_needed=False, looks=False)


def _oldest(images: pa.Table) -> datetime | None:
    """Return the smallest modification time; None if one is not known."""
    times = images["modification_time"]
    oldest: datetime | None = None if times.null_count else pc.min(times).as_py()
    return oldest
