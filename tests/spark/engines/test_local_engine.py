"""What the local engine and Spark must agree on: rows of a predicate, tables, and a checkpoint."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.engine import Following, Slice, Transaction, Watch
from lakemill.engines.local import commits
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.local.tables import open_table
from lakemill_udfs.errors import SetupError
from tests.local.test_commits import SCHEMA, files, rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NAN, DAY = math.nan, dt.date(2024, 1, 1)
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
TYPES = (
    "id INT, big BIGINT, x DOUBLE, f FLOAT, label STRING, flag BOOLEAN, day DATE, at TIMESTAMP, price DECIMAL(10, 2), "
    "out STRUCT<label: STRING, n: INT>"
)
VALUES: list[tuple[Any, ...]] = [
    (0, 2**60, 1.0, 0.5, "a\nb", True, DAY, NOON, Decimal("1.50"), ("x", 1)),
    (1, 2**60 + 1, NAN, 2.0, "ab", False, dt.date(1900, 1, 1), NOON + dt.timedelta(1), Decimal("-2.00"), ("y", None)),
    (2, None, None, NAN, None, None, None, None, None, None),
    (3, -5, -0.0, 0.1, "é_%", True, DAY, NOON - dt.timedelta(seconds=1), Decimal("2.00"), (None, 3)),
    (4, 0, math.inf, -1.5, "", False, dt.date(2024, 1, 2), NOON, Decimal("0.10"), ("x", -3)),
    (5, 7, 0.1, 16777216.0, "A", None, DAY, NOON, Decimal("1.00"), ("X", 0)),
]

TERMS = {
    "id": ["0", "3", "-1", "99999999999", "1.5"],
    "big": ["1152921504606846977", "0", "-5", "6.9"],
    "x": ["0", "1", "0.1", "-1.5", "1e0", "9007199254740992"],
    "f": ["0.1", "0.5", "2", "16777216"],
    "label": ["'ab'", "''", "'a'", "'É'", '"A"', r"'it\'s'"],
    "day": ["DATE '2024-01-01'", "'2024-01-02'"],
    "at": ["TIMESTAMP '2024-01-01T12:00:00Z'", "'2024-01-01 13:00:00+01:00'"],
    "price": ["1.5", "2", "0.1", "-2.00"],
    "out.label": ["'x'", "'y'"],
    "`out`.N": ["1", "-3"],
}


def comparisons() -> st.SearchStrategy[str]:
    def of(column: str) -> st.SearchStrategy[str]:
        literal = st.sampled_from(TERMS[column])
        sign = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">=", "<=>"])
        return st.one_of(
            st.builds(lambda s, v: f"{column} {s} {v}", sign, literal),
            st.builds(lambda s, v: f"{v} {s} {column}", sign, literal),
            st.builds(lambda low, high: f"{column} BETWEEN {low} AND {high}", literal, literal),
            st.builds(lambda low, high: f"{column} NOT BETWEEN {low} AND {high}", literal, literal),
            st.builds(
                lambda some, no: (
                    f"{column} {no}IN ({', '.join(v for v in some if '.5' not in v and '.9' not in v) or some[0]})"
                ),
                st.lists(literal, min_size=1, max_size=3),
                st.sampled_from(["", "NOT "]),
            ),
            st.sampled_from([f"{column} IS NULL", f"{column} IS NOT NULL"]),
        )

    likes = st.builds(
        lambda column, no, pattern: f"{column} {no}LIKE {pattern}",
        st.sampled_from(["label", "out.label"]),
        st.sampled_from(["", "NOT "]),
        st.sampled_from(["'a%'", "'_b'", "'a_b'", "'%'", "'___'", "''"]),
    )
    others = st.sampled_from(
        [
            "flag",
            "flag IS NOT TRUE",
            "flag IS FALSE",
            "flag = true",
            "out IS NULL",
            "CAST(id AS BIGINT) = 3",
            "x = x",
            "id < big",
            "true",
        ]
    )
    return st.one_of(st.sampled_from(sorted(TERMS)).flatmap(of), likes, others)


def predicates() -> st.SearchStrategy[str]:
    return st.recursive(
        comparisons(),
        lambda inner: st.one_of(
            st.builds(lambda one, two: f"{one} AND {two}", inner, inner),
            st.builds(lambda one, two: f"{one} OR {two}", inner, inner),
            inner.map(lambda one: f"NOT {one}"),
            inner.map(lambda one: f"({one})"),
        ),
        max_leaves=5,
    )


def test_predicates_keep_the_same_rows(spark: SparkSession, tmp_path: Path) -> None:
    """Each example is 40 predicates: Spark judges them in one job."""
    table = f"{tmp_path}/t"
    spark.createDataFrame(VALUES, TYPES).repartition(3).write.format("delta").save(table)
    frame = spark.read.format("delta").load(table).cache()
    refused, compared = 0, 0

    @settings(max_examples=15)
    @given(st.lists(predicates(), min_size=40, max_size=40))
    def same(wheres: list[str]) -> None:
        nonlocal refused, compared
        with LocalEngine() as engine:
            snapshot = engine.snapshot(table)
            assert snapshot is not None
            found: dict[str, list[int]] = {}
            for where in wheres:
                try:
                    found[where] = sorted(
                        engine.rows(snapshot).where(where).select(["id"]).to_arrow()["id"].to_pylist()
                    )
                except SetupError as error:
                    assert "ENGINE_LOCAL" in str(error)  # noqa: PT017 -- most are not refused
                    refused += 1
        expected = frame.selectExpr("id", *(f"({where}) AS w{number}" for number, where in enumerate(found))).collect()
        for number, (where, ids) in enumerate(found.items()):
            assert ids == sorted(row["id"] for row in expected if row[f"w{number}"]), where
            compared += 1

    same()
    assert compared > 20 * refused


def by_id(frame: DataFrame) -> list[tuple[Any, str]]:
    return sorted(((row["id"], row["out"]["label"]) for row in frame.collect()), key=str)


def test_spark_reads_what_the_local_engine_wrote(spark: SparkSession, tmp_path: Path) -> None:
    location = f"{tmp_path}/a table"
    table = commits.create(location, SCHEMA, {"delta.enableChangeDataFeed": "true"})
    done = commits.append(table, files(location, rows([1, 2, None]), rows([5], label="é" * 50)), Transaction("job", 3))
    assert done is not None
    frame = spark.read.format("delta").load(location)
    assert frame.schema["out"].dataType["x"].metadata == {
        "lakemill.dtype": "float32",
        "lakemill.shape": "[2, 2]",
        "lakemill.format": "1",
    }
    assert by_id(frame) == [(1, "x"), (2, "x"), (5, "é" * 50), (None, "x")]
    assert [row["id"] for row in frame.where(f"out.label = '{'é' * 50}'").collect()] == [
        5
    ]  # not left out by statistics
    assert frame.where("out.score > 0.4 AND time >= '2026-01-01'").count() == 4
    assert bytes(frame.where("id = 1").first()["out"]["x"]) == rows([1])["out"][0]["x"].as_py()
    # A transaction that is there is skipped by Spark too.
    again = frame.limit(1).write.format("delta").mode("append").option("txnAppId", "job").option("txnVersion", "3")
    again.save(location)
    assert spark.read.format("delta").load(location).count() == 4
    opened = open_table(location)
    assert opened is not None
    commits.merge(
        opened, files(f"{tmp_path}/x", rows([1], label="new")), ["id"], "metadata.job = 'a'", Transaction("job", 4)
    )
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 2).load(location)
    assert sorted(row["_change_type"] for row in feed.collect()) == ["update_postimage", "update_preimage"]


def test_deleted_rows_and_renamed_columns_of_spark_are_read_right(spark: SparkSession, tmp_path: Path) -> None:
    table = f"{tmp_path}/a table"
    frame = spark.range(0, 1000).selectExpr("id", "id % 7 AS seven", "named_struct('old', id) AS s").coalesce(1)
    frame.write.format("delta").option("delta.enableDeletionVectors", "true").save(table)
    spark.sql(f"DELETE FROM delta.`{table}` WHERE seven = 3 AND id > 10")  # noqa: S608
    with LocalEngine() as engine:
        snapshot = engine.snapshot(table)
        assert snapshot is not None
        assert any(file.dropped for file in snapshot.opened.files())
        expected = [number for number in range(1000) if number % 7 != 3 or number <= 10]
        assert sorted(engine.rows(snapshot).to_arrow()["id"].to_pylist()) == expected
        assert engine.rows(snapshot).count() == len(expected)
        spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
        spark.sql(f"ALTER TABLE delta.`{table}` RENAME COLUMN id TO number")
        spark.sql(f"ALTER TABLE delta.`{table}` RENAME COLUMN seven TO id")
        spark.sql(f"ALTER TABLE delta.`{table}` RENAME COLUMN s.old TO new")
        snapshot = engine.snapshot(table)
        assert snapshot is not None
        found = engine.rows(snapshot).where("id = 3").select(["number", "id", "s.new"]).to_arrow().to_pylist()
        assert sorted(row["number"] for row in found) == [3, 10]
        assert all(row["s.new"] == row["number"] for row in found)


def stream(spark: SparkSession, source: str, checkpoint: str, seen: list[Any]) -> None:
    def note(frame: DataFrame, batch_id: int) -> None:
        seen.append(("spark", batch_id, sorted(row["id"] for row in frame.collect())))

    reader = spark.readStream.format("delta").option("maxBytesPerTrigger", "1").load(source)
    query = reader.writeStream.foreachBatch(note).option("checkpointLocation", checkpoint).trigger(availableNow=True)
    query.start().awaitTermination()


def local(source: str, checkpoint: str, seen: list[Any], stop_after: int = 99) -> None:
    watch = Watch()

    def note(new: Slice) -> None:
        seen.append(("local", new.batch_id, sorted(new.rows.to_arrow()["id"].to_pylist())))
        stop = [one for one in seen if one[0] == "local"]
        if len(stop) == stop_after:
            watch.stop.set()

    with LocalEngine() as engine:
        snapshot = engine.snapshot(source)
        assert snapshot is not None
        what = Following(
            snapshot, None, changes=False, name="j", run_id="r", checkpoint=Checkpoint(checkpoint), max_bytes=1
        )
        engine.follow(what, note, watch)


def test_each_engine_goes_on_where_the_other_stopped(spark: SparkSession, tmp_path: Path) -> None:
    source, checkpoint = f"{tmp_path}/source", f"{tmp_path}/checkpoint"
    seen: list[Any] = []
    number = 0

    def add(count: int) -> None:
        nonlocal number
        for _ in range(count):
            spark.range(number, number + 10).repartition(2).write.format("delta").mode("append").save(source)
            number += 10

    add(2)  # the first snapshot is four files: local does one of them, then Spark the others
    local(source, checkpoint, seen, stop_after=1)
    stream(spark, source, checkpoint, seen)
    add(2)
    local(source, checkpoint, seen, stop_after=2)
    add(1)
    stream(spark, source, checkpoint, seen)
    spark.sql(f"OPTIMIZE delta.`{source}`")
    add(1)
    local(source, checkpoint, seen)
    stream(spark, source, checkpoint, seen)
    assert sorted(one for _, _, ids in seen for one in ids) == list(range(number))
    assert [batch_id for _, batch_id, _ in seen] == list(range(len(seen)))
    assert {engine for engine, _, _ in seen} == {"spark", "local"}


def test_a_snapshot_that_spark_began_is_ended_here(spark: SparkSession, tmp_path: Path) -> None:
    """Both number the files of a first snapshot alike: by when they were written, then by path."""
    source, checkpoint = f"{tmp_path}/source", f"{tmp_path}/checkpoint"
    for number in range(0, 60, 20):
        spark.range(number, number + 20).repartition(3).write.format("delta").mode("append").save(source)
    seen: list[Any] = []

    def note(frame: DataFrame, batch_id: int) -> None:
        if batch_id == 4:
            raise RuntimeError("enough")
        seen.append(("spark", batch_id, sorted(row["id"] for row in frame.collect())))

    reader = spark.readStream.format("delta").option("maxFilesPerTrigger", "1").load(source)
    query = reader.writeStream.foreachBatch(note).option("checkpointLocation", checkpoint).trigger(availableNow=True)
    running = query.start()
    from pyspark.errors import StreamingQueryException

    with pytest.raises(StreamingQueryException):
        running.awaitTermination()
    assert [batch_id for _, batch_id, _ in seen] == [0, 1, 2, 3]
    local(source, checkpoint, seen)  # begins with the batch that failed
    assert sorted(one for _, _, ids in seen for one in ids) == list(range(60))
    assert [batch_id for _, batch_id, _ in seen] == list(range(9))


def test_tables_are_one_for_both(tmp_path: Path, spark: SparkSession) -> None:
    """Local appends to a table that Spark made, with partitions and times."""
    table = f"{tmp_path}/t"
    frame = spark.createDataFrame([(1, "a", NOON)], "id INT, part STRING, at TIMESTAMP")
    frame.write.format("delta").partitionBy("part").save(table)
    with LocalEngine() as engine:
        new = pa.table(
            {
                "id": pa.array([2, 3], pa.int32()),
                "part": ["a", None],
                "at": pa.array([NOON, None], pa.timestamp("us", "UTC")),
            }
        )
        assert engine.append(engine.given(new), table)
    found = spark.read.format("delta").load(table).orderBy("id").collect()
    assert [(row["id"], row["part"]) for row in found] == [(1, "a"), (2, "a"), (3, None)]
    assert found[0]["at"] == found[1]["at"]
