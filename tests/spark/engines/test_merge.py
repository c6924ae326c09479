"""Predictions that replace earlier ones: by key, of one job only, once for each transaction, beside other writers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError
from lakemill.engines.engine import Transaction
from lakemill.engines.spark.engine import SparkEngine
from lakemill.engines.spark.rows import SparkRows
from lakemill.engines.spark.session import session_with

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def scored(spark: SparkSession, *rows: tuple[str, int], job: str = "digits") -> DataFrame:
    """Return rows as workers give them, of a session of its own."""
    values = ", ".join(f"('{path}', {out})" for path, out in rows)
    return session_with(spark, {}).sql(
        f"SELECT path, named_struct('score', out) AS out, CAST(NULL AS STRING) AS error, "  # noqa: S608
        f"named_struct('job', '{job}') AS metadata FROM VALUES {values} AS (path, out)"
    )


def add(spark: SparkSession, lake: Path, *rows: tuple[str, int], version: int, job: str = "digits") -> bool:
    """Merge rows, and return whether a commit was made."""
    new, own = SparkRows(scored(spark, *rows, job=job)), {"metadata.job": job}
    return SparkEngine(spark).merge(new, f"{lake}/predictions", ["path"], Transaction(f"{job}/test", version), own=own)


def table(lake: Path) -> list[tuple[str, str, int]]:
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    return sorted((row["metadata"]["job"], row["path"], row["out"]["score"]) for row in rows)


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with predictions ``a`` and ``b`` of two jobs."""
    for job in ("digits", "other"):
        rows = scored(spark, ("a", 1), ("b", 1), job=job)
        rows.coalesce(1).write.format("delta").mode("append").save(f"{tmp_path}/predictions")
    return tmp_path


def test_rows_replace_the_same_job_s_and_deleted_ones_go(lake: Path, spark: SparkSession) -> None:
    rows = scored(spark, ("a", 2), ("c", 2))
    gone = rows.sparkSession.sql("SELECT 'b' AS path UNION SELECT 'never seen'")
    made = SparkEngine(spark).merge(
        SparkRows(rows),
        f"{lake}/predictions",
        ["path"],
        Transaction("j", 1),
        own={"metadata.job": "digits"},
        gone=SparkRows(gone),
    )
    assert made
    assert table(lake) == [("digits", "a", 2), ("digits", "c", 2), ("other", "a", 1), ("other", "b", 1)]
    assert DeltaTable(f"{lake}/predictions").version() == 2


def test_a_transaction_that_is_there_is_skipped(lake: Path, spark: SparkSession) -> None:
    assert add(spark, lake, ("a", 2), version=7)
    assert not add(spark, lake, ("a", 3), version=7)
    assert ("digits", "a", 2) in table(lake)
    add(spark, lake, ("a", 3), version=8)
    assert ("digits", "a", 3) in table(lake)


def test_a_key_that_comes_twice_is_an_error(lake: Path, spark: SparkSession) -> None:
    with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\].* have the same path"):
        add(spark, lake, ("a", 2), ("a", 3), version=1)
    assert ("digits", "a", 1) in table(lake)


def test_jobs_that_write_at_the_same_time_all_land(lake: Path, spark: SparkSession) -> None:
    failures: list[Exception] = []

    def run(job: str) -> None:
        try:
            add(spark, lake, ("a", 5), ("new", 5), version=1, job=job)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in ("digits", "other", "third")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    rows = table(lake)
    assert len(rows) == 8
    assert {(job, "a", 5) for job in ("digits", "other", "third")} <= set(rows)
