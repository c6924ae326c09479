"""A source's change feed on Spark: what each key's changes come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.engines.relations import Latest
from lakemill.engines.spark import tables
from lakemill.engines.spark.rows import KeyVersions, SparkRows, same_key, unused_names
from lakemill.engines.spark.schemas import column_of
from lakemill_udfs.plan import RESERVED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GONE = ("delete", "update_preimage")


def latest(changes: DataFrame, key: Sequence[str], where: str | None, known: DataFrame) -> Latest:
    """Return each key's last state; see ``Engine.latest``."""
    from pyspark.sql import functions as fn

    kept = tables.filtered(changes, where)
    taken = [*changes.columns, *RESERVED]
    renamed = unused_names(key, taken)
    (version,) = unused_names(["version"], [*taken, *renamed.values()]).values()
    last = _last_states(kept, renamed, version)
    present = last.where("present").drop("present", "left_over")
    # A key's row of that commit; what it was before the commit is not.
    after, same_commit = ~fn.col("_change_type").isin(*GONE), fn.col("_commit_version") == fn.col(version)
    rows = kept.where(after).join(present, same_key(kept, present, renamed) & same_commit, "left_semi")

    def keys(frame: DataFrame) -> SparkRows:
        return SparkRows(frame.select(*(fn.col(other).alias(name) for name, other in renamed.items())))

    there = known.select(*(column_of(known, name).alias(f"known_{other}") for name, other in renamed.items()))
    same = same_key(last, there, {other: f"known_{other}" for other in renamed.values()})
    new_beside_known = last.where("left_over = 0").join(there, same, "left_semi")
    has_null = " OR ".join(f"{other} IS NULL" for other in renamed.values())
    doubtful = last.where(f"left_over NOT IN (-1, 0) OR {has_null}").unionByName(new_beside_known)
    versions = KeyVersions(present, renamed, version)
    return Latest(SparkRows(rows, versions), keys(last.where("NOT present")), keys(last), keys(doubtful))


def _last_states(changes: DataFrame, renamed: dict[str, str], version: str) -> DataFrame:
    """Return for each key the version of its last change, whether it is in the source after it, and ``left_over``.

    That is how many rows came less those that went, without the one that is there: of one row at a time it is -1 where
    the key was there before, else 0. Only narrow columns are shuffled: the rows themselves may be images.
    """
    from pyspark.sql import functions as fn

    came = ~fn.col("_change_type").isin(*GONE)
    keys = [column_of(changes, name).alias(other) for name, other in renamed.items()]
    states = changes.select(*keys, fn.col("_commit_version").alias(version), came.alias("present"))
    # A commit may delete a row and add it again: then it is there.
    last = fn.max(fn.struct(version, "present")).alias("last")
    net = fn.sum(fn.when(fn.col("present"), 1).otherwise(-1)).alias("net")
    grouped = states.groupBy(*renamed.values()).agg(last, net)
    left_over = fn.expr("net - IF(last.present, 1, 0)").alias("left_over")
    return grouped.select(*renamed.values(), f"last.{version}", "last.present", left_over)
