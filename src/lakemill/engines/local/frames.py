"""Arrow's rows as frames of Polars, which is only loaded here: 70 ms that most short commands do not need."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl


def frame_of(rows: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """Return rows as a frame, without a copy where Polars needs none."""
    import polars as pl

    return cast("pl.DataFrame", pl.from_arrow(rows))
