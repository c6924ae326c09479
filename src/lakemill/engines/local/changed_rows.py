"""A source's changes on this engine: what they come to for each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pyarrow as pa

from lakemill.engines.local.conforming import of_rows
from lakemill.engines.local.frames import frame_of
from lakemill.engines.local.own_columns import own_column
from lakemill.engines.local.rows import LocalRows, given
from lakemill.engines.relations import Latest
from lakemill.engines.reserved_columns import CHANGE_TYPE, COMMIT_VERSION

GONE = ("delete", "update_preimage")
THERE, LEFT_OVER = own_column("there"), own_column("left_over")


def latest(changes: LocalRows, key: Sequence[str], where: str | None, known: LocalRows) -> Latest:
    """Return each key's last state; see ``Engine.latest``. Only narrow columns are held here."""
    names, kept = list(key), changes if where is None else changes.where(where)
    last = _last_states(kept, names)
    present = last.filter(THERE).select(*names, COMMIT_VERSION)
    on = [*names, COMMIT_VERSION]
    rows = kept.where(f"{CHANGE_TYPE} NOT IN ('delete', 'update_preimage')")
    rows = rows.chosen(on, lambda frame: frame.join(present, on=on, how="semi", nulls_equal=True))

    def keys(frame: pl.DataFrame) -> LocalRows:
        schema = pa.schema([of_rows(changes.file_schema.field(name)) for name in names])
        return given(changes.room, frame.select(names).to_arrow().cast(schema))

    gone, doubtful = last.filter(~pl.col(THERE)), _doubtful(last, names, known)
    return Latest(replace(rows, has_versions=True), keys(gone), keys(last), keys(doubtful))


def _last_states(changes: LocalRows, names: list[str]) -> pl.DataFrame:
    """Return for each key the version of its last change, whether it is in the source after it, and ``LEFT_OVER``.

    That is how many rows came less those that went, without the one that is there: of one row at a time it is -1 where
    the key was there before, else 0.
    """
    looked_at = [CHANGE_TYPE, COMMIT_VERSION, *names]
    schema = pa.schema([changes.file_schema.field(name) for name in looked_at])
    table = pa.Table.from_batches(list(changes.select(looked_at).batches()), schema)
    came, version = ~pl.col(CHANGE_TYPE).is_in(GONE), pl.col(COMMIT_VERSION)
    is_there = came.filter(version == version.max()).any()  # a commit may delete a row and add it again
    return (
        frame_of(table)
        .group_by(names)
        .agg(
            version.max(),
            is_there.alias(THERE),
            (pl.when(came).then(1).otherwise(-1).sum() - is_there.cast(pl.Int64)).alias(LEFT_OVER),
        )
    )


def _doubtful(last: pl.DataFrame, names: list[str], known: LocalRows) -> pl.DataFrame:
    is_null = pl.any_horizontal(pl.col(names).is_null())
    unfit, new = last.filter(~pl.col(LEFT_OVER).is_in([-1, 0]) | is_null), last.filter(pl.col(LEFT_OVER) == 0)
    keys = [] if new.is_empty() else [frame_of(batch) for batch in known.select(names).batches()]
    if keys:
        there = pl.concat(keys).cast(new.select(names).schema)
        unfit = pl.concat([unfit, new.join(there, on=names, how="semi", nulls_equal=True)])
    return unfit
