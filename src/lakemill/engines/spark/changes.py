"""A source's change feed on Spark: what each key's changes come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.engines.spark.rows import KeyVersions, SparkRows, same_key, unused_names
from lakemill.engines.spark.schemas import column_of
from lakemill_udfs.plan import RESERVED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PREIMAGE, DELETE = "update_preimage", "delete"


def latest(changes: DataFrame, key: Sequence[str], where: str | None) -> tuple[SparkRows, SparkRows]:
    """Return each key's last state; see ``Engine.latest``."""
    from pyspark.sql import functions as fn

    taken = [*changes.columns, *RESERVED]
    renamed = unused_names(key, taken)
    (version,) = unused_names(["version"], [*taken, *renamed.values()]).values()
    last = _last_states(changes, renamed, version, where)
    present = last.where("present").drop("present")
    after = ~fn.col("_change_type").isin(PREIMAGE, DELETE)
    # A key's row of that commit; what it was before the commit is not.
    same_commit = fn.col("_commit_version") == fn.col(version)
    rows = changes.where(after).join(present, same_key(changes, present, renamed) & same_commit, "left_semi")
    gone = last.where("NOT present").select(*(fn.col(other).alias(name) for name, other in renamed.items()))
    return SparkRows(rows, KeyVersions(present, renamed, version)), SparkRows(gone)


def _last_states(changes: DataFrame, renamed: dict[str, str], version: str, where: str | None) -> DataFrame:
    """Return one row a key: the version of its last change, and whether it is in the source after it.

    Only narrow columns are shuffled: the rows themselves may be images.
    """
    from pyspark.sql import functions as fn

    is_there = fn.col("_change_type") != DELETE
    if where is not None:
        is_there &= fn.coalesce(fn.expr(f"({where})"), fn.lit(False))
    keys = [column_of(changes, name).alias(other) for name, other in renamed.items()]
    states = changes.where(fn.col("_change_type") != PREIMAGE).select(
        *keys, fn.col("_commit_version").alias(version), is_there.alias("present")
    )
    # A commit may delete a row and add it again: then it is there.
    last = fn.max(fn.struct(version, "present")).alias("last")
    grouped = states.groupBy(*renamed.values()).agg(last)
    return grouped.select(*renamed.values(), f"last.{version}", "last.present")
