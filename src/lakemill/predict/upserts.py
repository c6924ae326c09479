"""Rows that change in the source: their predictions are replaced, or removed where the row is gone.

With a change feed, a micro-batch holds changes; what counts is each key's last state in it. Without one, a column that
differs whenever a row changed takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakemill.engines.checkpoint import Checkpoint, check_identity, job_identity
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.merge import merge
from lakemill.engines.sql import sql_text
from lakemill.predict.commits import Committed, write_quarantine
from lakemill_udfs.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakemill.predict.run import Run

PREIMAGE, DELETE = "update_preimage", "delete"


def check_feed(run: Run) -> None:
    """Refuse ``changes: upsert`` on a source that does not record its changes.

    Raises:
        ConfigError: ``FEED_DISABLED``.
    """
    name = tables.sql_name(run.config.source.table)
    properties = {row["key"]: row["value"] for row in run.spark.sql(f"SHOW TBLPROPERTIES {name}").collect()}
    if properties.get("delta.enableChangeDataFeed") != "true":
        raise ConfigError(
            "FEED_DISABLED",
            f"source.changes: upsert reads the change feed of '{run.config.source.table}', which is not on.",
            hint=f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = true); or name a "
            "source.change_column.",
        )


def score_changes(
    run: Run, changes: DataFrame, origin: Mapping[str, Any], transaction: Mapping[str, str], source_version: int
) -> Committed:
    """Score each key's last state and merge it into the predictions, in one commit.

    Args:
        run: What it needs.
        changes: A part of the source's change feed, unfiltered.
        origin: ``query_id`` and ``batch_id`` of the rows.
        transaction: Delta's ids.
        source_version: The batch's last version.

    Raises:
        LakemillError: as ``merge``.
    """
    from pyspark.sql import functions as fn

    key = list(run.source.key)
    last = _last_states(changes, key, run.config.source.where)
    names = [fn.col(name).alias(f"_{name}") for name in key]
    present = last.where("_present").select(*names, fn.col("_commit_version").alias("_version"))
    # A key's row of that commit; what it was before the commit is not.
    rows = changes.where(~fn.col("_change_type").isin(PREIMAGE, DELETE)).join(
        present, [*_same_key(key), fn.col("_commit_version") == fn.col("_version")], "left_semi"
    )
    scored = run.scored(rows, source_version=source_version, **origin)
    scored = _with_versions(scored, present, key)
    deleted = last.where("NOT _present") if run.config.source.deleted == "remove" else None
    return merge(scored, run.config, key, transaction, deleted=deleted)


def _last_states(changes: DataFrame, key: list[str], where: str | None) -> DataFrame:
    """Return one row a key: the version of its last change, and whether it is in the source after it.

    Only narrow columns are shuffled: the rows themselves may be images.
    """
    from pyspark.sql import functions as fn

    is_there = fn.col("_change_type") != DELETE
    if where is not None:
        is_there &= fn.coalesce(fn.expr(f"({where})"), fn.lit(False))
    # A commit may delete a row and add it again: then it is there.
    last = fn.max(fn.struct("_commit_version", is_there.alias("_present"))).alias("_last")
    return (
        changes.where(fn.col("_change_type") != PREIMAGE)
        .groupBy(*key)
        .agg(last)
        .select(*key, "_last._commit_version", "_last._present")
    )


def _same_key(key: list[str]) -> list[Column]:
    """Return the condition that ``key`` is the same as ``_key``, the renamed key of the other side."""
    from pyspark.sql import functions as fn

    return [fn.col(name).eqNullSafe(fn.col(f"_{name}")) for name in key]


def _with_versions(scored: DataFrame, present: DataFrame, key: list[str]) -> DataFrame:
    """Return predictions whose ``source_version`` is that of the row's own commit."""
    from pyspark.sql import functions as fn

    own = fn.coalesce("_version", "metadata.source_version")
    return (
        scored.join(present, _same_key(key), "left")
        .withColumn("metadata", fn.col("metadata").withField("source_version", own))
        .select(*scored.columns)
    )


def remove_orphans(run: Run, source_version: int) -> None:
    """Delete the job's predictions whose row is not in the source.

    Args:
        run: What it needs.
        source_version: The source as it was then.
    """
    config = run.config
    source = tables.filtered(tables.read(run.spark, config.source.table, source_version), config.source.where)
    source.select(*run.source.key).createOrReplaceTempView("lakemill_source")
    own = f"t.metadata.job = {sql_text(config.name)}"
    same_key = " AND ".join(f"t.`{name}` <=> s.`{name}`" for name in run.source.key)
    statement = (
        f"MERGE INTO {tables.sql_name(config.output.table)} t USING lakemill_source s "
        f"ON {own} AND {same_key} WHEN NOT MATCHED BY SOURCE AND {own} THEN DELETE"
    )
    try:
        done = retry_conflicts(lambda: run.spark.sql(statement).collect(), config.output.table)
    finally:
        run.spark.catalog.dropTempView("lakemill_source")
    if done[0]["num_deleted_rows"]:
        run.tell(f"removed {done[0]['num_deleted_rows']} predictions whose row left the source")


def run_change_column(run: Run) -> None:
    """Score the rows whose key or ``source.change_column`` has no prediction, and replace theirs, in one commit.

    It keeps no state but the source version it was at: what to do is found by comparing the two tables.
    """
    from pyspark.sql import functions as fn

    config, checkpoint = run.config, Checkpoint.of(run.config)
    key = list(run.source.key)
    source_version = tables.version(run.spark, config.source.table)
    identity = job_identity(config, key)
    known = checkpoint.identity()
    if known is not None:
        check_identity(known, identity)
        if known["source_version"] == source_version and not run.is_new_output:
            return
    source = tables.filtered(tables.read(run.spark, config.source.table, source_version), config.source.where)
    predictions = tables.read(run.spark, config.output.table).where(f"metadata.job = {sql_text(config.name)}")
    transaction = {
        "txnAppId": f"{config.name}/upsert",
        "txnVersion": str(tables.version(run.spark, config.output.table)),
    }
    state = list(dict.fromkeys((*key, str(config.source.change_column))))
    done = predictions.select(*(fn.col(name).alias(f"_{name}") for name in state))
    rows = source.join(done, _same_key(state), "left_anti")
    deleted = None
    if config.source.deleted == "remove":
        there = source.select(*(fn.col(name).alias(f"_{name}") for name in key))
        deleted = predictions.select(*key).join(there, _same_key(key), "left_anti")
    batch = merge(run.scored(rows, source_version=source_version), config, key, transaction, deleted=deleted)
    if batch.rows:
        run.result.add(batch, None, source_version)
        run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
        write_quarantine(run.spark, config, f"metadata.run_id = '{run.result.run_id}'", {})
    checkpoint.claim(identity | {"source_version": source_version})
