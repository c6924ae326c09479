"""A job writes, replaces and deletes only what is its own, whatever its tables hold and whatever they are called."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.config.transform import TransformConfig
from lakemill.predict.redo import reset_job
from lakemill.transform.job import transform_images
from tests.lake import write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FEED = "delta.enableChangeDataFeed"


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield a folder with a table of 4 numbers that records its changes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    source(spark, tmp_path, "SELECT id, CAST(id AS DOUBLE) AS x FROM range(4)")
    return tmp_path


def source(spark: SparkSession, lake: Path, query: str, table: str = "numbers") -> None:
    """Append the result of a query to a table."""
    spark.sql(query).coalesce(1).write.format("delta").mode("append").option(FEED, "true").save(f"{lake}/{table}")


def job(lake: Path, *overrides: str, function: str = "twice", x: str = "x", **values: Any) -> PredictConfig:
    outputs = {name: {"dtype": "float64"} for name in (("y", "z") if "thrice" in function else ("y",))}
    usual: dict[str, Any] = {
        "name": "job",
        "source__table": f"{lake}/numbers",
        "source__key": ["id"],
        "pipeline__steps": [
            {"python": {"function": f"own_functions:{function}", "inputs": {"x": x}, "outputs": outputs}}
        ],
        "output__table": f"{lake}/predictions",
    }
    return PredictConfig.load(None, overrides, **usual | values)


def rows_of(lake: Path, table: str = "predictions") -> list[dict[str, Any]]:
    """Read a table with the independent reader."""
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/{table}").to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str((row.get("id"), row.get("metadata", {}).get("job"))))


def of_job(lake: Path, name: str, table: str = "predictions") -> list[dict[str, Any]]:
    return [row for row in rows_of(lake, table) if row["metadata"]["job"] == name]


def version(lake: Path, table: str = "predictions") -> int:
    return DeltaTable(f"{lake}/{table}").version()


@pytest.mark.parametrize("mode", ["full", "incremental", "missing"])
def test_a_table_of_something_else_is_left_alone(lake: Path, spark: SparkSession, mode: str) -> None:
    source(spark, lake, "SELECT 1 AS id, 'kept' AS note", "other")
    for key in ("output__table", "quarantine__table"):
        with pytest.raises(LakemillError, match=r"^\[OUTPUT_NOT_OURS\] .* has id, note") as caught:
            predict_table(job(lake, mode=mode, **{key: f"{lake}/other"}), spark)
        assert "full" not in str(caught.value)
        assert "replace" not in str(caught.value)
    assert (version(lake, "other"), len(rows_of(lake, "other"))) == (0, 1)


def test_only_when_told_so_a_table_of_something_else_is_replaced(lake: Path, spark: SparkSession) -> None:
    source(spark, lake, "SELECT 1 AS id, 'kept' AS note", "other")
    config = job(lake, mode="full", output__table=f"{lake}/other")
    with pytest.raises(LakemillError, match=r"^\[REPLACE_MODE\]"):
        predict_table(job(lake, output__table=f"{lake}/other"), spark, replace_table=True)
    assert predict_table(config, spark, replace_table=True).rows == 4
    assert [row["out"]["y"] for row in rows_of(lake, "other")] == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
        predict_table(job(lake, mode="full", output__table=f"{lake}/numbers"), spark, replace_table=True)


def test_full_replaces_its_own_rows_in_one_commit_and_keeps_the_layout(lake: Path, spark: SparkSession) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{lake}/predictions` (id BIGINT, label STRING, reviewed BOOLEAN, out STRUCT<y: DOUBLE>, "
        "error STRUCT<stage: STRING, code: STRING, message: STRING>, metadata STRUCT<job: STRING, run_id: STRING>) "
        f"USING delta PARTITIONED BY (label) TBLPROPERTIES ('{FEED}' = 'true', 'lake.owner' = 'me')"
    )
    one, two = job(lake, name="one"), job(lake, name="two")
    predict_table(one, spark)
    predict_table(two, spark)
    others, before = of_job(lake, "one"), version(lake)
    spark.sql(f"DELETE FROM delta.`{lake}/numbers` WHERE id = 3")  # noqa: S608 -- a folder of the test
    again = predict_table(job(lake, name="two", mode="full"), spark)
    assert (again.rows, version(lake)) == (3, before + 1)
    assert of_job(lake, "one") == others
    assert [row["id"] for row in of_job(lake, "two")] == [0, 1, 2]
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{lake}/predictions`").collect()[0]
    assert (detail["partitionColumns"], detail["properties"]["lake.owner"]) == (["label"], "me")
    assert "reviewed" in rows_of(lake)[0]
    # Where nothing is left to score, nothing of the job's is left; the other job goes on.
    assert predict_table(job(lake, "source.where=id > 10", name="two", mode="full"), spark).rows == 0
    assert (of_job(lake, "one"), of_job(lake, "two")) == (others, [])


def test_jobs_of_one_output_have_fields_of_their_own(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, name="one"), spark)
    predict_table(job(lake, "source.columns=[x]", name="two", function="twice_and_thrice"), spark)
    source(spark, lake, "SELECT 4L AS id, 4D AS x")
    assert predict_table(job(lake, name="one"), spark).rows == 1
    assert predict_table(job(lake, name="one", mode="missing"), spark).rows == 0
    assert predict_table(job(lake, name="one", mode="full"), spark).rows == 5
    assert predict_table(job(lake, name="one", mode="where", source__where="id < 2"), spark).rows == 2
    assert [(row["out"], row["x"]) for row in of_job(lake, "one")] == [
        ({"y": 2.0 * x, "z": None}, None) for x in range(5)
    ]
    assert [(row["out"]["z"], row["x"]) for row in of_job(lake, "two")] == [(3.0 * x, x) for x in range(4)]


def test_an_output_that_a_new_pipeline_lacks_is_null_in_the_rows_it_replaces(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "output.dataset=['*']", function="twice_and_thrice"), spark)
    assert predict_table(job(lake, mode="missing"), spark).rows == 4
    assert [(row["out"], row["in"]) for row in rows_of(lake)] == [({"y": 2.0 * x, "z": None}, None) for x in range(4)]


def test_a_column_that_somebody_added_stays(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake), spark)
    spark.sql(f"ALTER TABLE delta.`{lake}/predictions` ADD COLUMN reviewed BOOLEAN")
    spark.sql(f"UPDATE delta.`{lake}/predictions` SET reviewed = true")  # noqa: S608 -- a folder of the test
    source(spark, lake, "SELECT 4L AS id, 4D AS x")
    assert predict_table(job(lake), spark).rows == 1
    assert predict_table(job(lake, function="twice_and_thrice", mode="missing"), spark).rows == 5
    assert [row["reviewed"] for row in rows_of(lake)] == [True] * 4 + [None]


def test_an_outputs_column_of_another_type_is_refused(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake), spark)
    source(spark, lake, "SELECT 'a' AS id, 1D AS x", "texts")
    config = job(lake, source__table=f"{lake}/texts", name="texts", mode="full")
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_SCHEMA\] .*id is bigint there, expected string"):
        predict_table(config, spark)


def test_a_quarantine_table_gains_fields_and_is_shared(lake: Path, spark: SparkSession) -> None:
    quarantine = {"quarantine__table": f"{lake}/bad"}
    predict_table(job(lake, name="one", function="even", **quarantine), spark)
    predict_table(job(lake, name="two", function="even_and_thrice", output__table=f"{lake}/more", **quarantine), spark)
    source(spark, lake, "SELECT id, CAST(id AS DOUBLE) AS x FROM range(4, 8)")
    assert predict_table(job(lake, name="one", function="even_and_thrice", **quarantine), spark).rows == 4
    found = [(row["metadata"]["job"], row["id"]) for row in rows_of(lake, "bad")]
    assert sorted(found) == [("one", 1), ("one", 3), ("one", 5), ("one", 7), ("two", 1), ("two", 3)]
    assert reset_job(job(lake, name="one", **quarantine), spark) == 8
    assert [row["metadata"]["job"] for row in rows_of(lake, "bad")] == ["two", "two"]


NAMES = ["_deleted", "version", "present", "change_type", "a.b", "with space", "größe", "_version", "__gone"]


@pytest.mark.parametrize("way", ["key", "carried"])
def test_internal_names_never_meet_a_users(lake: Path, spark: SparkSession, way: str) -> None:
    named = ", ".join(f"id % 2 AS `{name.replace('`', '``')}`" for name in NAMES)
    rows = spark.sql(f"SELECT id, CAST(id AS DOUBLE) AS x, {named} FROM range(4)")  # noqa: S608 -- of this test
    rows.limit(0).write.format("delta").option("delta.columnMapping.mode", "name").save(f"{lake}/named")
    spark.sql(f"ALTER TABLE delta.`{lake}/named` SET TBLPROPERTIES ('{FEED}' = 'true')")
    rows.coalesce(1).write.format("delta").mode("append").save(f"{lake}/named")
    usual: dict[str, Any] = {"source__table": f"{lake}/named", "source__changes": "upsert"}
    usual |= {"source__key": ["id", *NAMES]} if way == "key" else {"source__columns": NAMES}
    assert predict_table(job(lake, **usual), spark).rows == 4
    expected = [{"id": number} | dict.fromkeys(NAMES, number % 2) for number in range(4)]

    def carried() -> list[dict[str, Any]]:
        rows = spark.table(f"delta.`{lake}/predictions`").collect()
        return sorted(({name: row[name] for name in ("id", *NAMES)} for row in rows), key=lambda row: str(row["id"]))

    assert carried() == expected
    spark.sql(f"UPDATE delta.`{lake}/named` SET x = 9 WHERE id = 1")  # noqa: S608 -- a folder of the test
    assert predict_table(job(lake, **usual), spark).rows == 1
    assert carried() == expected
    assert predict_table(job(lake, function="twice_and_thrice", mode="missing", **usual), spark).rows == 4
    assert predict_table(job(lake, mode="full", **usual), spark).rows == 4
    assert carried() == expected
    spark.sql(f"DELETE FROM delta.`{lake}/named` WHERE id = 0")  # noqa: S608 -- a folder of the test
    predict_table(job(lake, **usual), spark)
    assert carried() == expected[1:]


@pytest.mark.parametrize(
    ("values", "code", "count"),
    [
        ("(1L, 1D), (1L, 2D), (2L, 3D)", "KEY_NOT_UNIQUE", "2 of 3 rows"),
        ("(NULL, 1D), (NULL, 2D), (2L, 3D)", "KEY_NULL", "2 of 3 rows"),
    ],
)
def test_keys_that_do_not_tell_rows_apart_are_found_before_the_commit(
    lake: Path, spark: SparkSession, values: str, code: str, count: str
) -> None:
    source(spark, lake, f"SELECT id, x FROM VALUES {values} AS (id, x)", "doubtful")  # noqa: S608 -- of this test
    for mode in ({"source__changes": "upsert"}, {"mode": "missing"}, {"mode": "where", "source__where": "id > 0"}):
        config = job(lake, source__table=f"{lake}/doubtful", **mode)
        if code == "KEY_NULL" and "source__where" in mode:
            continue  # it leaves them out
        with pytest.raises(LakemillError, match=rf"^\[{code}\] {count}"):
            predict_table(config, spark)
    assert rows_of(lake) == []
    appended = job(lake, source__table=f"{lake}/doubtful", output__table=f"{lake}/appended")
    assert predict_table(appended, spark).rows == 3  # append needs no key


def test_a_source_of_the_catalog_is_not_overwritten_by_its_path(lake: Path, spark: SparkSession) -> None:
    spark.sql(f"CREATE TABLE own_numbers USING delta LOCATION '{lake}/numbers'")
    try:
        for read, written in (("Own_Numbers", f"{lake}/numbers"), (f"{lake}/numbers", "OWN_numbers")):
            config = job(
                lake, source__table=read, output__table=written, output__checkpoint=f"{lake}/progress", mode="full"
            )
            with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
                predict_table(config, spark)
    finally:
        spark.sql("DROP TABLE own_numbers")
    assert version(lake, "numbers") == 0
    assert not (lake / "progress.lock").exists()


def test_a_transform_overwrites_only_what_it_made(lake: Path, spark: SparkSession) -> None:
    write_images(spark, lake / "images", 0, 2)
    write_images(spark, lake / "other", 5, 3)

    def transformed(**values: Any) -> int:
        usual = {"source__table": f"{lake}/images", "output__table": f"{lake}/small", "transform": {"size": [4, 4]}}
        return transform_images(TransformConfig.load(**usual | values), spark).version

    assert (transformed(), transformed()) == (0, 1)
    for values in ({"output__table": f"{lake}/other"}, {"name": "another"}):
        with pytest.raises(LakemillError, match=r"^\[OUTPUT_NOT_OURS\]"):
            transformed(**values)
    spark.sql(f"ALTER TABLE delta.`{lake}/small` SET TBLPROPERTIES ('lakemill.madeBy' = 'transform/another')")
    assert transformed(name="another") == 3
    for table in (f"{lake}/images/", f"file:{lake}/images/within", f"{lake}"):
        with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
            transformed(output__table=table)
    assert (version(lake, "images"), version(lake, "other")) == (0, 0)


def test_equal_contents_are_scored_once_whatever_the_columns_are_called(lake: Path, spark: SparkSession) -> None:
    query = "SELECT id, id `a.b`, 'p' `_digest`, 'q' `_first`, 'r' `_group`, CAST(id % 2 AS STRING) AS x FROM range(4)"
    source(spark, lake, query, "texts")
    config = job(
        lake,
        function="length",
        source__table=f"{lake}/texts",
        source__key=["id", "a.b"],
        source__columns=["_digest", "_first", "_group"],
        deduplicate="content",
    )
    assert predict_table(config, spark).rows == 4
    source(spark, lake, query.replace("range(4)", "range(4, 6)"), "texts")
    assert predict_table(config, spark).rows == 2
    found = [(row["a.b"], row["_digest"], row["_first"], row["_group"], row["out"]["y"]) for row in rows_of(lake)]
    assert found == [(number, "p", "q", "r", 1.0) for number in range(6)]


def test_replacing_a_table_is_asked_for(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    told = ["--source", f"{lake}/numbers", "--model", "model.onnx", "--output", f"{lake}/other", "--mode", "full"]
    assert run(["predict", *told, "--replace-table"]) == 1
    assert not (lake / "other_checkpoint").exists()


def test_run_tables_of_something_else_get_no_rows(
    lake: Path, spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    source(spark, lake, "SELECT 1 AS id, 'kept' AS note", "predictions_runs")
    assert predict_table(job(lake), spark).rows == 4
    assert "TABLE_SCHEMA" in caplog.text
    assert version(lake, "predictions_runs") == 0
