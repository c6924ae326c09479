"""Predictions that replace earlier ones: one Delta MERGE on the job and the key, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark import tables
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_text
from lakemill.engines.sql import sql_text
from lakemill.predict.commits import Committed, judged
from lakemill_udfs.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TRANSACTION_SETTINGS = {
    "txnAppId": "spark.databricks.delta.write.txnAppId",
    "txnVersion": "spark.databricks.delta.write.txnVersion",
}
VIEW = "lakemill_scored"
DELETED = "_deleted"


def merge(
    scored: DataFrame,
    config: PredictConfig,
    key: Sequence[str],
    write_options: Mapping[str, str],
    *,
    deleted: DataFrame | None = None,
    replaces: str | None = None,
    metrics: bool = True,
    before_commit: Callable[[], None] | None = None,
) -> Committed:
    """Run the inference once, judge the share of errors, and merge the rows into the predictions in one Delta commit.

    Rows of this job with the same key are replaced, other keys are added. Rows of other jobs are not touched.

    Args:
        scored: Result of ``predict_batches``; nothing has run yet. Its session must be one of our own: for the time of
            the MERGE, the transaction's ids stand in its settings.
        config: The job.
        key: Columns that tell rows apart; each key at most once in ``scored`` and ``deleted`` together.
        write_options: Delta's ``txnAppId`` and ``txnVersion``; a transaction that is there already is skipped.
        deleted: Keys whose predictions are taken out in the same commit.
        replaces: SQL predicate on the predictions: this job's others that it holds for are taken out too.
        metrics: Whether ``scored`` has ``_task``.
        before_commit: Called when the batch is judged and about to be written.

    Returns:
        What was written; no rows if the transaction was there already.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``; nothing was written.
        TableError: ``KEY_NOT_UNIQUE`` if a key comes twice.
        RunError: ``COMMIT_CONFLICT``.
    """
    from pyspark.sql import functions as fn

    with judged(scored, config, metrics=metrics) as (kept, batch):
        if not batch.rows and replaces is None and (deleted is None or deleted.isEmpty()):
            return batch
        rows = kept.withColumn(DELETED, fn.lit(False))
        if deleted is not None:
            gone = deleted.select(*key, fn.lit(True).alias(DELETED))
            rows = rows.unionByName(gone, allowMissingColumns=True)
        if before_commit is not None:
            before_commit()
        statement = _statement(config, key, kept.columns, replaces)
        rows.createOrReplaceTempView(VIEW)
        try:
            with transaction(rows.sparkSession, write_options):
                done = retry_conflicts(lambda: rows.sparkSession.sql(statement).collect(), config.output.table)
        except SPARK_FAILURES as error:
            if "DELTA_MULTIPLE_SOURCE_ROW_MATCHING" in spark_text(error):
                raise key_not_unique(config, key) from error
            raise
        finally:
            rows.sparkSession.catalog.dropTempView(VIEW)
    return batch if done else replace(batch, rows=0, rows_error=0)


@contextmanager
def transaction(spark: SparkSession, write_options: Mapping[str, str]) -> Iterator[None]:
    """Give SQL's MERGE and DELETE a transaction id, which they take from the session's settings only.

    Args:
        spark: A session of our own, in which nothing else writes meanwhile.
        write_options: ``txnAppId`` and ``txnVersion``, as a DataFrame's write takes them.
    """
    for option, value in write_options.items():
        spark.conf.set(TRANSACTION_SETTINGS[option], value)
    try:
        yield
    finally:
        for option in write_options:
            spark.conf.unset(TRANSACTION_SETTINGS[option])


def key_not_unique(config: PredictConfig, key: Sequence[str]) -> TableError:
    """Return the error for a key that several rows have."""
    return TableError(
        "KEY_NOT_UNIQUE",
        f"several rows of '{config.source.table}' or of its predictions have the same {', '.join(key)}.",
        hint="source: {key: [...]} must name columns that tell rows apart.",
    )


def _statement(config: PredictConfig, key: Sequence[str], columns: Sequence[str], replaces: str | None) -> str:
    same_key = " AND ".join(f"t.`{name}` <=> s.`{name}`" for name in key)
    update = ", ".join(f"t.`{name}` = s.`{name}`" for name in columns)
    names, values = (", ".join(f"{prefix}`{name}`" for name in columns) for prefix in ("", "s."))
    own = f"t.metadata.job = {sql_text(config.name)}"
    others = f" WHEN NOT MATCHED BY SOURCE AND {own} AND ({replaces}) THEN DELETE" if replaces is not None else ""
    return (
        # Evolution: a new model may have added outputs.
        f"MERGE WITH SCHEMA EVOLUTION INTO {tables.sql_name(config.output.table)} t "  # noqa: S608 -- names are quoted
        f"USING {VIEW} s "
        f"ON {own} AND {same_key} "
        f"WHEN MATCHED AND s.{DELETED} THEN DELETE WHEN MATCHED THEN UPDATE SET {update} "
        f"WHEN NOT MATCHED AND NOT s.{DELETED} THEN INSERT ({names}) VALUES ({values}){others}"
    )
