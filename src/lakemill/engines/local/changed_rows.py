"""A source's changes on this engine: what they come to for each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import polars as pl
import pyarrow as pa

from lakemill.engines.local.changes import CHANGE_TYPE, COMMIT_VERSION
from lakemill.engines.local.predicates import Predicate
from lakemill.engines.local.rows import LocalRows, given

GONE = ("delete", "update_preimage")


def latest(changes: LocalRows, key: Sequence[str], where: str | None) -> tuple[LocalRows, LocalRows]:
    """Return each key's last state; see ``Engine.latest``. Only narrow columns are held here."""
    names = list(key)
    predicate = None if where is None else Predicate.read(where, changes.file_schema)
    looked_at = [CHANGE_TYPE, COMMIT_VERSION, *names]

    def states(rows: LocalRows) -> pl.DataFrame:
        batches = list(rows.select(looked_at).batches())
        table = pa.Table.from_batches(batches, pa.schema([changes.file_schema.field(name) for name in looked_at]))
        return cast(pl.DataFrame, pl.from_arrow(table))

    everything = states(changes)
    there = (
        everything.filter(~pl.col(CHANGE_TYPE).is_in(GONE))
        if predicate is None
        else states(changes.where(f"{CHANGE_TYPE} NOT IN ('delete', 'update_preimage')").where(cast(str, where)))
    )
    there = there.select(*names, COMMIT_VERSION).unique()
    # A commit may delete a row and add it again: then it is there.
    last = everything.group_by(names).agg(pl.col(COMMIT_VERSION).max())
    present = last.join(there, on=[*names, COMMIT_VERSION], how="semi", nulls_equal=True)
    gone = last.join(present, on=names, how="anti", nulls_equal=True).select(names)
    kept = changes.where(f"{CHANGE_TYPE} NOT IN ('delete', 'update_preimage')")
    on = [*names, COMMIT_VERSION]
    kept = kept.chosen(on, lambda frame: frame.join(present, on=on, how="semi", nulls_equal=True))
    if where is not None:
        kept = kept.where(where)
    schema = pa.schema([changes.file_schema.field(name) for name in names])
    return replace(kept, has_versions=True), given(changes.room, gone.to_arrow().cast(schema))
