"""DataFrames that are a scan, a filter and a projection are read from their table, with the rows that Spark gives."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

from lakemill.training import SparkDatasetConverter, make_spark_converter
from lakemill.training.epochs import Segment
from lakemill.training.frames import PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

COLUMNS = ("number", "score", "label", "ok", "day", "part", "amount")
ROWS = """
SELECT id AS number, CAST(IF(id % 7 = 0, NULL, IF(id % 11 = 0, 'NaN', id / 4)) AS FLOAT) AS score,
       CASE id % 5 WHEN 0 THEN NULL WHEN 1 THEN 'a' WHEN 2 THEN 'a, b' WHEN 3 THEN 'it''s (x)' ELSE 'null' END AS label,
       IF(id % 6 = 0, NULL, id % 2 = 0) AS ok, date_add(DATE '2026-01-01', CAST(id % 9 AS INT)) AS day,
       IF(id % 4 = 3, NULL, CAST(id % 4 AS INT)) AS part, CAST(id AS DOUBLE) AS amount
FROM RANGE(0, 60, 1, 2)
"""


@pytest.fixture(scope="module", params=[pytest.param("as written", marks=pytest.mark.matrix), "with rows deleted"])
def table(request: pytest.FixtureRequest, _spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("scans") / "a table")
    rows = _spark.sql(ROWS).write.format("delta").partitionBy("part")
    is_deleted = request.param == "with rows deleted"
    rows.option("delta.enableDeletionVectors", str(is_deleted).lower()).save(path)
    if is_deleted:
        _spark.sql(f"DELETE FROM delta.`{path}` WHERE number IN (3, 8, 20, 41)")  # noqa: S608 -- our own folder
    return path


@pytest.fixture
def cache(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "cache"
    spark.conf.set(PARENT, folder.as_uri())
    yield folder
    spark.conf.unset(PARENT)


def whole(spark: SparkSession, table: str) -> DataFrame:
    return spark.read.format("delta").load(table)


def plain(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def given_out(converter: SparkDatasetConverter) -> Counter[Any]:
    """Return the rows as they are stored, before anything becomes a tensor."""
    table, found = converter.table, []
    for number, block in enumerate(table.blocks):
        rows = table.read(Segment(number, 0, block.rows), table.schema.names)
        found += zip(*(rows[name].to_pylist() for name in table.schema.names), strict=True)
    return Counter(tuple(map(plain, row)) for row in found)


def spark_s(df: DataFrame) -> Counter[Any]:
    return Counter(tuple(map(plain, row)) for row in df.collect())


COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["number", "part", "amount"]), st.integers(-1, 30)),
    st.tuples(st.just("score"), st.sampled_from(["0.5", "3.1", "CAST('NaN' AS FLOAT)", "1e10"])),
    st.tuples(st.just("label"), st.sampled_from(["'a'", "'a, b'", "'it\\'s (x)'", "'null'", "''"])),
    st.tuples(st.just("day"), st.just("DATE '2026-01-05'")),
).flatmap(lambda pair: st.sampled_from(["=", "<>", "<", ">=", "<=>"]).map(lambda how: f"{pair[0]} {how} {pair[1]}"))
LEAVES = COMPARISONS | st.sampled_from(
    [
        "ok",
        "ok IS NOT TRUE",
        "label IS NULL",
        "score IS NOT NULL",
        "label LIKE 'a%'",
        "label LIKE '%x%'",
        "label IN ('a', 'null')",
        "label IN ('a, b', 'b')",
        "number IN (1, 2, 3, 5, 8, 13, 21, 34, 55, 7, 9, 11)",
        "number BETWEEN 5 AND 20",
        "number % 3 = 1",
        "upper(label) = 'A'",
        "number > score",
        "part IS NULL",
    ]
)
FILTERS = st.recursive(
    LEAVES,
    lambda one: st.one_of(
        st.tuples(one, st.sampled_from(["AND", "OR"]), one).map(lambda three: f"({' '.join(three)})"),
        one.map(lambda inner: f"NOT ({inner})"),
    ),
    max_leaves=4,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wheres=st.lists(FILTERS, max_size=2),
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=7, unique=True),
    is_chosen_first=st.booleans(),
)
def test_any_filter_and_projection_gives_spark_s_rows(
    spark: SparkSession, table: str, cache: Path, wheres: list[str], columns: list[str], is_chosen_first: bool
) -> None:
    df = whole(spark, table)
    chosen = [F.col(f"`{name}`") for name in columns]
    if is_chosen_first and wheres:
        df = df.where(wheres.pop(0)).select(*COLUMNS[::-1][1:], F.col("amount"))
    for where in wheres:
        df = df.where(where)
    df = df.select(*chosen)
    converter = make_spark_converter(df)
    assert converter.table.schema.names == columns
    assert given_out(converter) == spark_s(df)
    if converter.is_copy:
        converter.delete()


@pytest.mark.parametrize(
    "how",
    [
        lambda df: df,
        lambda df: df.select("label", "number"),
        lambda df: df.where("number > 5 AND label = 'a'").select("score"),
        lambda df: df.where("part = 1").where("score < 3.5 OR score IS NULL"),
        lambda df: df.where("label LIKE '%a%' AND ok").select("number", "part"),
        lambda df: df.where("label IN ('a', 'null') AND day >= DATE '2026-01-03'"),
        lambda df: df.where("part IS NULL").select("amount"),
    ],
)
def test_a_scan_is_not_copied(spark: SparkSession, table: str, cache: Path, how: Any) -> None:
    df = how(whole(spark, table))
    converter = make_spark_converter(df)
    assert not converter.is_copy
    assert not cache.exists()
    assert converter.table.location == table
    assert given_out(converter) == spark_s(df)
    assert {url.rpartition("/")[2] for url in converter.file_urls} <= {
        url.rpartition("/")[2] for url in whole(spark, table).inputFiles()
    }


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda df: df.withColumn("score", F.col("score") * 2), "computes"),
        (lambda df: df.withColumnRenamed("score", "points"), "computes"),
        (lambda df: df.where("number % 3 = 1"), "filter"),
        (lambda df: df.where("label IN ('a, b', 'null')"), "filter"),  # read as three strings, which Spark disproves
        (lambda df: df.limit(7), "does more"),
        (lambda df: df.orderBy("number"), "does more"),
        (lambda df: df.union(df), "does more"),
        (lambda df: df.join(df.select("number"), "number"), "does more"),
        (lambda df: df.groupBy("part").count(), "does more"),
        (lambda df: df.where("number < 0"), "does more|one table|Delta"),
    ],
)
def test_what_computes_is_copied_and_the_line_says_why(
    spark: SparkSession, table: str, cache: Path, caplog: pytest.LogCaptureFixture, how: Any, why: str
) -> None:
    df = how(whole(spark, table))
    converter = make_spark_converter(df)
    assert converter.is_copy
    if not df.isEmpty():
        assert given_out(converter) == spark_s(df)
    (line,) = caplog.messages
    assert any(one in line for one in why.split("|")), line
    converter.delete()


def test_an_older_version_is_not_taken_for_the_newest(
    spark: SparkSession, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "versions")
    first = spark.range(10).write.format("delta").option("delta.enableDeletionVectors", "true")
    first.save(path)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE id = 3")  # noqa: S608 -- our own folder
    old = spark.sql(f"SELECT * FROM delta.`{path}` VERSION AS OF 1")  # noqa: S608
    spark.sql(f"RESTORE TABLE delta.`{path}` TO VERSION AS OF 0")
    spark.sql(f"DELETE FROM delta.`{path}` WHERE id = 4")  # noqa: S608 -- the same file, with as many rows
    converter = make_spark_converter(old)
    assert converter.is_copy
    assert "newest" in caplog.text
    assert given_out(converter) == spark_s(old)
    newest = make_spark_converter(whole(spark, path))
    assert (newest.is_copy, newest.table.version) == (False, 3)
    spark.range(5).write.format("delta").mode("append").save(path)
    assert len(newest) == 9, "the version stays what it was"


def test_further_filters_go_on_top(spark: SparkSession, table: str, cache: Path) -> None:
    df = whole(spark, table).where("number >= 10").select("number", "label")
    converter = make_spark_converter(df, where="number < 50")
    with converter.make_loader(schema_fields=["number"], filters=[("number", ">", 20)]) as loader:
        numbers = sorted(number for batch in loader for number in batch["number"].tolist())
    assert numbers == sorted(row[0] for row in df.where("number > 20 AND number < 50").collect())
    assert make_spark_converter(df, compression_codec="gzip").is_copy, "a layout of its own is a copy's"
