"""What a commit of the source comes to, on Spark: keys that change, commits larger than a batch, keys that repeat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig, predict_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "both/predict"))


FEED = "TBLPROPERTIES (delta.enableChangeDataFeed = true)"


def job(lake: Path, *, key: str = "id", function: str = "twice", column: str = "x", **values: Any) -> PredictConfig:
    step = {"function": f"own_functions:{function}", "inputs": {"x": column}, "outputs": {"y": {"dtype": "float64"}}}
    usual = {
        "name": "units",
        "source__table": f"{lake}/source",
        "source__key": [key],
        "source__changes": "upsert",
        "pipeline__steps": [{"python": step}],
        "output__table": f"{lake}/predictions",
    }
    return PredictConfig.load(**usual | values)


def rows_by_key(table: Path, key: str) -> dict[Any, dict[str, Any]]:
    """Read predictions with the independent reader."""
    rows = DeltaTable(table).to_pyarrow_table().to_pylist()
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def predictions(lake: Path, key: str = "id") -> dict[Any, float]:
    return {name: row["out"]["y"] for name, row in rows_by_key(lake / "predictions", key).items()}


def run_sql(spark: SparkSession, lake: Path, *statements: str) -> None:
    for statement in statements:
        spark.sql(statement.format(source=f"delta.`{lake}/source`"))


def test_a_key_that_is_changed_takes_its_prediction_along(tmp_path: Path, spark: SparkSession) -> None:
    run_sql(spark, tmp_path, f"CREATE TABLE {{source}} (`a.id` BIGINT, x DOUBLE) USING delta {FEED}")
    run_sql(spark, tmp_path, "INSERT INTO {source} VALUES (1, 1), (2, 2), (3, 3)")
    config = job(tmp_path, key="a.id", source__where="x < 50")
    predict_table(config, spark)
    run_sql(
        spark,
        tmp_path,
        "UPDATE {source} SET `a.id` = 100 WHERE `a.id` = 1",
        "UPDATE {source} SET x = 99 WHERE `a.id` = 2",
    )
    predict_table(config, spark)
    assert predictions(tmp_path, "a.id") == {3: 6.0, 100: 2.0}
    for mode in ("missing", "full"):
        predict_table(job(tmp_path, key="a.id", mode=mode, name=mode, output__table=f"{tmp_path}/{mode}"), spark)
        assert len(rows_by_key(tmp_path / mode, "a.id")) == 3


@pytest.mark.parametrize("change", ["overwrite", "restore"])
def test_a_commit_larger_than_a_batch_is_one_unit(tmp_path: Path, spark: SparkSession, change: str) -> None:
    run_sql(spark, tmp_path, f"CREATE TABLE {{source}} (id BIGINT, x DOUBLE) USING delta {FEED}")
    source = str(tmp_path / "source")
    query = "SELECT id, CAST(id AS DOUBLE) AS x FROM range(0, 2000, 1, 2)"
    spark.sql(query).write.format("delta").mode("append").save(source)
    config = job(tmp_path, engine={"max_bytes_per_trigger": 5000})
    predict_table(config, spark)
    assert len(predictions(tmp_path)) == 2000
    if change == "overwrite":
        new = spark.sql(query.replace("AS x", "+ 1 AS x"))
        new.write.format("delta").mode("overwrite").save(source)
    else:
        run_sql(spark, tmp_path, "DELETE FROM {source} WHERE id >= 3", "RESTORE {source} TO VERSION AS OF 1")
    run_sql(spark, tmp_path, "INSERT INTO {source} VALUES (5000, 1)")
    predict_table(config, spark)
    more = 1.0 if change == "overwrite" else 0.0
    assert predictions(tmp_path) == {number: 2 * (number + more) for number in range(2000)} | {5000: 2.0}
    assert predict_table(config, spark).batches == 0


def test_a_repeated_key_is_found_over_several_commits_and_the_way_on_works(tmp_path: Path, spark: SparkSession) -> None:
    run_sql(spark, tmp_path, f"CREATE TABLE {{source}} (id BIGINT, x DOUBLE) USING delta {FEED}")
    run_sql(spark, tmp_path, "INSERT INTO {source} VALUES (1, 1), (2, 3)")
    predict_table(job(tmp_path), spark)
    version = DeltaTable(tmp_path / "predictions").version()
    run_sql(spark, tmp_path, "INSERT INTO {source} VALUES (2, 9), (3, 5)")
    for mode in ({}, {"mode": "missing"}, {"mode": "where", "source__where": "x = 9"}):
        config = job(tmp_path, source__columns=["x"], **mode) if mode else job(tmp_path)
        with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\] 2 of [234] rows") as raised:
            predict_table(config, spark)
        assert "nothing of this batch was written" in str(raised.value)
    there = DeltaTable(tmp_path / "predictions")
    assert {row["id"] for row in there.to_pyarrow_table().to_pylist()} == {1, 2}
    assert there.version() <= version + 1  # the carried column that was added
    run_sql(spark, tmp_path, "DELETE FROM {source} WHERE x = 9")
    predict_table(job(tmp_path), spark)
    assert predictions(tmp_path) == {1: 2.0, 2: 6.0, 3: 10.0}


@pytest.mark.parametrize(
    ("column", "kind"), [("map(1, 2)", "map<int,int>"), ("parse_json('1')", "variant"), ("NULL", "void")]
)
def test_a_key_that_cannot_be_compared_is_named_before_anything_runs(
    tmp_path: Path, spark: SparkSession, column: str, kind: str
) -> None:
    spark.sql(f"SELECT {column} AS k, 1D AS x").write.format("delta").save(f"{tmp_path}/source")
    for values in ({}, {"source__changes": "append"}, {"mode": "missing"}):
        with pytest.raises(LakemillError) as raised:
            predict_table(job(tmp_path, key="k", **values), spark)
        assert raised.value.code == "KEY_TYPE"
        assert "'k'" in raised.value.message
        assert kind in raised.value.message
    assert not (tmp_path / "predictions").exists()


def test_copies_are_rows_whose_whole_input_is_equal(tmp_path: Path, spark: SparkSession) -> None:
    query = "SELECT id, concat('a', id DIV 2) AS content, 'same' AS sha256, id * 1D AS lab FROM range(4)"
    spark.sql(query.replace("id DIV 2", "repeat('b', int(id DIV 2))")).write.format("delta").save(f"{tmp_path}/source")
    checked = job(
        tmp_path,
        function="length",
        column="content",
        source__changes="append",
        source__columns=["lab"],
        deduplicate="content",
        pipeline__checks=[{"name": "odd", "expr": "in.lab > 1.5 AND in.lab < 2.5"}],
    )
    predict_table(checked, spark)
    found = rows_by_key(tmp_path / "predictions", "id")
    assert [found[number]["out"]["y"] for number in range(4)] == [1.0, 1.0, 2.0, 2.0]
    assert [found[number]["anomaly"]["odd"] for number in range(4)] == [False, False, True, False]
