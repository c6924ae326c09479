"""What goes wrong around a job on Spark has a code and names its cause: rules of the output, sources, moved schemas."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from pyspark.errors import PySparkException

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.plan.job import plan_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a source of 3 rows."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "both/predict"))
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}/source` (id INT, x DOUBLE, c INT, e STRING) USING delta "
        "TBLPROPERTIES (delta.enableChangeDataFeed = true, delta.columnMapping.mode = 'name')"
    )
    add(spark, tmp_path, "(1, 1, 1, 'a'), (2, 2, 2, 'b'), (3, 3, 3, 'c')")
    return tmp_path


def add(spark: SparkSession, lake: Path, values: str, columns: str = "id, x, c, e", table: str = "source") -> None:
    spark.sql(f"INSERT INTO delta.`{lake}/{table}` ({columns}) VALUES {values}")  # noqa: S608 -- of this test


def alter(spark: SparkSession, table: Path, *changes: str) -> None:
    for change in changes:
        spark.sql(f"ALTER TABLE delta.`{table}` {change}")


def job(lake: Path, **values: Any) -> PredictConfig:
    step = {"function": "own_functions:twice", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    usual = {
        "name": "foreseen",
        "source__table": f"{lake}/source",
        "source__key": ["id"],
        "pipeline__steps": [{"python": step}],
        "output__table": f"{lake}/predictions",
    }
    return PredictConfig.load(**usual | values)


def refusal(config: PredictConfig, spark: SparkSession | None) -> LakemillError:
    with pytest.raises(LakemillError) as raised:
        predict_table(config, spark)
    return raised.value


def count(lake: Path) -> int:
    return DeltaTable(lake / "predictions").to_pyarrow_table().num_rows


def test_rules_of_the_output_are_named(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake), spark)
    output = lake / "predictions"
    alter(spark, output, "ADD CONSTRAINT small CHECK (id < 7)")
    add(spark, lake, "(10, 1, 1, 'a')")
    error = refusal(job(lake), spark)
    assert error.code == "OUTPUT_CONSTRAINT"
    assert "small (id < 7)" in error.message
    assert count(lake) == 3
    alter(spark, output, "DROP CONSTRAINT small", "SET TBLPROPERTIES ('delta.appendOnly' = 'true')")
    assert refusal(job(lake, mode="full"), spark).code == "OUTPUT_APPEND_ONLY"
    assert predict_table(job(lake), spark).rows == 1
    null = PySparkException("[DELTA_NOT_NULL_CONSTRAINT_VIOLATED] NOT NULL constraint violated for column: id.\n")
    error = spark_failure(null)
    assert (error.code, "id must not be null" in error.message) == ("OUTPUT_CONSTRAINT", True)


@pytest.mark.parametrize("kind", ["view", "parquet"])
def test_a_source_without_versions_is_scored_whole_or_refused(lake: Path, spark: SparkSession, kind: str) -> None:
    query = f"SELECT id, x FROM delta.`{lake}/source` WHERE id < 3"  # noqa: S608 -- a folder of the test
    spark.sql(
        f"CREATE VIEW foreseen_source AS {query}"
        if kind == "view"
        else f"CREATE TABLE foreseen_source USING parquet LOCATION '{lake}/plain' AS {query}"
    )
    try:
        for values in ({}, {"mode": "missing"}, {"source__changes": "upsert"}, {"mode": "full", "source__version": 0}):
            error = refusal(job(lake, source__table="foreseen_source", **values), spark)
            assert error.code == "SOURCE_NOT_DELTA"
            assert kind in error.message
        assert not (lake / "predictions").exists()
        assert [file.name for file in lake.glob("predictions_checkpoint/*")] == []
        whole = job(lake, source__table="foreseen_source", mode="full")
        assert plan_job(whole, spark).problems == []
        assert predict_table(whole, spark).rows == 2
        rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
        assert {row["metadata"]["source_version"] for row in rows} == {None}
    finally:
        spark.sql(f"DROP {'VIEW' if kind == 'view' else 'TABLE'} foreseen_source")


def test_a_corrupt_file_of_the_source_is_named(lake: Path, spark: SparkSession) -> None:
    spark.read.format("delta").load(f"{lake}/source").coalesce(1).write.format("delta").save(f"{lake}/copy")
    file = next((lake / "copy").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:40])
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    for mode in ("incremental", "full"):
        error = refusal(job(lake, source__table=f"{lake}/copy", mode=mode), spark)
        assert error.code == "STORAGE_READ"
        assert file.name in error.message


@pytest.mark.matrix  # tests/both asks it in test_where_and_time_travel
def test_the_version_that_was_read_is_the_one_that_is_named(lake: Path, spark: SparkSession) -> None:
    add(spark, lake, "(4, 4, 4, 'd')")
    history = spark.sql(f"DESCRIBE HISTORY delta.`{lake}/source`").collect()
    when = {row["version"]: row["timestamp"].isoformat(sep=" ") for row in history}
    for asked in (1, "1", when[1]):
        result = predict_table(job(lake, mode="full", source__version=asked), spark)
        assert (result.rows, result.source_version) == (3, 1)


def test_what_nobody_foresaw_is_in_a_file_that_only_its_owner_reads(spark: SparkSession) -> None:
    with pytest.raises(SPARK_FAILURES) as raised:
        spark.sql("SELECT raise_error('a secret')").collect()
    error = spark_failure(raised.value)
    assert error.code == "SPARK_FAILED"
    assert "secret" not in str(error)
    path = Path(re.findall(r"'([^']*lakemill-error-[^']*)'", str(error))[0])
    assert "a secret" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()


@pytest.mark.matrix  # tests/local/test_moved_schemas.py has its like
@pytest.mark.parametrize("changes", ["append", "upsert"])
def test_columns_that_a_job_does_not_use_come_and_go_and_one_that_it_uses_is_said(
    lake: Path, spark: SparkSession, changes: str
) -> None:
    def new_rows() -> int:
        return predict_table(job(lake, source__changes=changes), spark).rows

    assert new_rows() == 3
    source = lake / "source"
    alter(spark, source, "ADD COLUMN late STRING")
    add(spark, lake, "(4, 4)", "id, x")
    assert new_rows() == 1
    alter(spark, lake / "predictions", "ADD COLUMN note STRING")
    add(spark, lake, "(5, 5)", "id, x")
    assert new_rows() == 1
    assert "note" in DeltaTable(lake / "predictions").schema().to_arrow().names
    alter(spark, source, "DROP COLUMN late", "RENAME COLUMN e TO other")
    add(spark, lake, "(6, 6)", "id, x")
    assert new_rows() == 1
    add(spark, lake, "(7, 7)", "id, x")
    alter(spark, source, "RENAME COLUMN other TO e", "DROP COLUMN c")
    local = job(lake, source__changes=changes, engine__name="local")
    assert predict_table(local).rows == 1  # an engine means by it what the other one does
    alter(spark, source, "DROP COLUMN x", "ADD COLUMN x DOUBLE")
    for config, session in ((job(lake, source__changes=changes), spark), (local, None)):
        error = refusal(config, session)
        assert error.code == "SOURCE_CHANGED"
        assert "'x' is another column now" in error.message
        assert "mode: full" in str(error)
    assert predict_table(job(lake, source__changes=changes, mode="full"), spark).rows == 7
    assert new_rows() == 0
    alter(spark, source, "RENAME COLUMN x TO z")
    assert refusal(job(lake, source__changes=changes), spark).code == "MODEL_INPUT_MISSING"
    assert count(lake) == 7


@pytest.mark.matrix  # tests/local/test_moved_schemas.py has its like
def test_a_carried_column_that_widened_is_widened(lake: Path, spark: SparkSession) -> None:
    config = job(lake, source__columns=["c"], source__changes="upsert")
    predict_table(config, spark)
    spark.sql(f"CREATE TABLE delta.`{lake}/small` (id INT, x DOUBLE, c INT) USING delta")
    add(spark, lake, "(8, 8, 8)", "id, x, c", "small")
    other = job(lake, name="other", source__table=f"{lake}/small", source__columns=["c"])
    predict_table(other, spark)
    changes = ("SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')", "ALTER COLUMN c TYPE BIGINT")
    alter(spark, lake / "source", *changes)
    add(spark, lake, "(4, 4, 5000000000, 'd')")
    assert predict_table(config, spark).rows == 1
    add(spark, lake, "(9, 9, 9)", "id, x, c", "small")
    assert predict_table(other, spark).rows == 1  # its own column is as narrow as it was
    table = DeltaTable(lake / "predictions").to_pyarrow_table()
    assert str(table.schema.field("c").type) == "int64"
    assert table.schema.field("out").type.field("y").metadata[b"lakemill.dtype"] == b"float64"
    found = {row["id"]: (row["c"], row["out"]["y"]) for row in table.to_pylist()}
    assert found == {1: (1, 2.0), 2: (2, 4.0), 3: (3, 6.0), 4: (5_000_000_000, 8.0), 8: (8, 16.0), 9: (9, 18.0)}
    assert predict_table(config, spark).rows == 0
