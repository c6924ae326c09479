"""``where`` on the local engine: Spark's meaning, or a refusal."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from decimal import Decimal

import pyarrow as pa
import pytest

from lakemill.engines.local.predicates import Bounds, Predicate
from lakemill_udfs.errors import ConfigError, SetupError

DAY = dt.date(2024, 1, 1)
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
ROWS = pa.table(
    {
        "id": pa.array([0, 1, 2, 3], pa.int32()),
        "Big": pa.array([2**60, 2**60 + 1, None, -5], pa.int64()),
        "x": pa.array([1.0, math.nan, None, 7.5], pa.float64()),
        "y": pa.array([1.0, math.nan, 2.0, 8.5], pa.float64()),
        "f": pa.array([0.1, 2.0, None, math.nan], pa.float32()),
        "label": ["a\nb", "ab", None, "é_%"],
        "flag": [True, False, None, True],
        "day": pa.array([DAY, DAY + dt.timedelta(1), None, DAY], pa.date32()),
        "at": pa.array([NOON, NOON + dt.timedelta(hours=1), None, NOON], pa.timestamp("us", "UTC")),
        "local": pa.array([dt.datetime(2024, 1, 1)] * 4, pa.timestamp("us")),
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-1.00")], pa.decimal128(10, 2)),
        "out": [{"label": "x", "n": 1}, {"label": "y", "n": None}, None, {"label": "x", "n": 3}],
        "blob": [b"1", b"2", b"3", b"4"],
        "we ird": [1, 2, 3, 4],
    }
)


def kept(where: str) -> list[int]:
    predicate = pickle.loads(pickle.dumps(Predicate.read(where, ROWS.schema)))  # noqa: S301 -- our own, as workers do
    return list(predicate.filter(ROWS.to_batches()[0])["id"].to_pylist())


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("id = 1", [1]),
        ("1 < id", [2, 3]),
        ("ID <> 1 AND NOT id >= 3", [0, 2]),
        ("big = 1152921504606846977", [1]),
        ("Big > 1.5", [0, 1]),
        ("Big <=> 5 OR big IS NULL", [2]),
        ("NOT (Big IN (1152921504606846976, -5))", [1]),
        ("id IN (1, 99999999999)", [1]),
        ("x > 5", [1, 3]),  # Spark: NaN is above all numbers
        ("x <= 1", [0]),
        ("NOT x > 5", [0]),
        ("x = y", [0, 1]),
        ("x < y", [3]),
        ("x <=> y", [0, 1]),
        ("x IN (1, 7.5)", [0, 3]),
        ("f = 0.1", []),  # Spark compares as double
        ("f = 2", [1]),
        ("label LIKE 'a%b'", [0, 1]),
        ("label NOT LIKE 'a_b'", [1, 3]),
        ("label LIKE '___'", [0, 3]),
        ('label = "ab"', [1]),
        ("label > 'ab'", [3]),
        ("label IN ('ab', 'x') AND label NOT IN ('x')", [1]),
        ("id NOT BETWEEN 1 AND 2", [0, 3]),
        ("flag", [0, 3]),
        ("NOT flag", [1]),
        ("flag IS NOT TRUE", [1, 2]),
        ("flag = false", [1]),
        ("day >= DATE '2024-01-02'", [1]),
        ("day = '2024-01-01'", [0, 3]),
        ("day BETWEEN '2024-01-01' AND '2024-01-01'", [0, 3]),
        ("at > TIMESTAMP '2024-01-01T13:00:00+01:00'", [1]),
        ("at = '2024-01-01 12:00:00Z'", [0, 3]),
        ("price >= 1.5", [0, 1]),
        ("price = 2", [1]),
        ("out.label = 'x' AND out['n'] > 1", [3]),
        ("out IS NULL OR out.n IS NULL", [1, 2]),
        ("`we ird` = 4", [3]),
        ("CAST(id AS BIGINT) = 2", [2]),
        (r"label = 'it\'s' OR label = 'ab'", [1]),
        ("true", [0, 1, 2, 3]),
        ("blob IS NOT NULL AND (id = 0)", [0]),
    ],
)
def test_rows_that_spark_would_keep(where: str, ids: list[int]) -> None:
    assert kept(where) == ids


@pytest.mark.parametrize(
    "where",
    [
        "label = 1",
        "id = '1'",
        "id = 1.5e0",
        "at > TIMESTAMP '2024-01-01 00:00:00'",
        "at > DATE '2024-01-01'",
        "local > '2024-01-01T00:00:00Z'",
        "day > '2024'",
        "id IN (SELECT 1)",
        "id IN (1, NULL)",
        "id = NULL",
        "label = 'it''s'",
        "label LIKE ANY ('a')",
        "id BETWEEN SYMMETRIC 2 AND 1",
        "id = 1 id",
        "rand() < 0.5",
        "upper(label) = 'A'",
        "id + 1 = 2",
        "id % 2 = 0",
        "label RLIKE 'a'",
        "label LIKE 'a!%' ESCAPE '!'",
        r"label LIKE 'a\\%'",
        r"label = 'a\n'",
        r"label = 'a\\\n'",
        "blob = 'x'",
        "CAST(label AS INT) = 1",
        "x = id",
        "x > 9007199254740993",
        "f = 16777217",
        "1 = 1",
        "id",
        "(id = 1) = true",
        "size(out) = 1",
        "at > current_timestamp()",
    ],
)
def test_what_spark_could_read_otherwise_is_refused(where: str) -> None:
    with pytest.raises(SetupError, match="ENGINE_LOCAL"):
        Predicate.read(where, ROWS.schema)


@pytest.mark.parametrize("where", ["nothing = 1", "id = ", "out.other = 1", "id = 1; id = 2", "id.x = 1"])
def test_what_does_not_fit_the_table_is_said(where: str) -> None:
    with pytest.raises(ConfigError, match="WHERE_INVALID"):
        Predicate.read(where, ROWS.schema)


def test_a_deep_predicate_ends_with_a_refusal() -> None:
    with pytest.raises(SetupError, match="ENGINE_LOCAL"):
        Predicate.read("(" * 3000 + "id = 1" + ")" * 3000, ROWS.schema)


@pytest.mark.parametrize(
    ("where", "partition", "statistics", "may_hold"),
    [
        ("id > 5", {}, {"min.id": 1, "max.id": 5, "null_count.id": 0, "num_records": 9}, False),
        ("id > 5", {}, {"min.id": 1, "max.id": 5, "null_count.id": 2, "num_records": 9}, False),
        ("id > 5", {}, {"min.id": 1, "max.id": 6, "null_count.id": 2, "num_records": 9}, True),
        ("id IS NULL", {}, {"min.id": 1, "max.id": 6, "null_count.id": 2, "num_records": 9}, True),
        ("id IS NULL", {}, {"min.id": 1, "max.id": 6, "null_count.id": 0, "num_records": 9}, False),
        ("id = 1", {}, {"null_count.id": 9, "num_records": 9}, False),
        ("NOT id = 1", {}, {"min.id": 1, "max.id": 1, "null_count.id": 0, "num_records": 9}, False),
        ("id = 1", {}, {}, True),
        ("x > 5", {}, {"min.x": 1.0, "max.x": 2.0, "null_count.x": 0, "num_records": 9}, True),  # NaN may be there
        ("at > '2024-01-01T12:00:00Z'", {}, {"min.at": NOON, "max.at": NOON, "null_count.at": 0}, True),
        ("label = 'c'", {"label": "b"}, {}, False),
        ("label IS NULL", {"label": None}, {}, True),
        ("out.n = 5", {}, {"min.out.n": 1, "max.out.n": 3, "null_count.out.n": 0, "num_records": 9}, False),
    ],
)
def test_files_that_cannot_hold_a_row_are_left_out(
    where: str, partition: dict[str, object], statistics: dict[str, object], may_hold: bool
) -> None:
    assert Predicate.read(where, ROWS.schema).may_hold(Bounds(partition, statistics)) is may_hold
