"""Checks judge rows one by one; what looks across rows would depend on the batching and is refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakemill_udfs.checks import compile_check, run_checks
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps import Check

ROW = {"p": 0.3, "q": None, "n": 3, "s": "abc", "mode": "unique", "list": [1.0, 2.0], "flag": True}
OUT = pa.array([ROW])


@pytest.mark.parametrize(
    "expr",
    [
        "out.p < 0.5 AND in.n IS NOT NULL",
        "out.p BETWEEN 0 AND 1",
        "out.s IN ('abc', 'x')",
        "out.s LIKE 'a%'",
        "abs(out.p - 1) > 0.5",
        "round(out.p, 1) = 0.3",
        "CASE WHEN out.n > 1 THEN TRUE ELSE FALSE END",
        "coalesce(out.q, 1.0) > 0.5",
        "length(out.s) = 3",
        "upper(out.s) = 'ABC'",
        "array_contains(out.list, CAST(2.0 AS DOUBLE))",
        "greatest(out.p, 0.1) > 0.2",
        "CAST(out.p AS INT) = 0",
        "NOT (NOT out.flag)",
        "out.mode = 'unique'",
        "sqrt(out.n) > 1 AND pow(out.n, 2) = 9",
    ],
)
def test_conditions_on_one_row_are_allowed(expr: str) -> None:
    result = run_checks({"c": compile_check(Check("c", expr))}, OUT, OUT)
    assert result.to_pylist() == [{"count": 1, "c": True}]


@pytest.mark.parametrize(
    "expr",
    [
        "out.p > avg(out.p)",
        "sum(out.n) > 1",
        "count(*) > 1",
        "max(out.p) = out.p",
        "first(out.p) > 0",
        "median(out.p) > 0",
        "quantile_cont(out.p, 0.5) > 0",
        "corr(out.p, out.n) > 0",
        "covar(out.p, out.n) > 0",
        "count(DISTINCT out.p) > 1",
        "string_agg(out.s, ',') = 'a'",
        "sum(out.n) OVER () > 1",
        "max(out.p) OVER (PARTITION BY out.s) = 1",
        "row_number() OVER (ORDER BY out.p) = 1",
        "row_number() OVER () = 1",
        "rank() OVER (ORDER BY out.p) = 1",
        "lag(out.p) OVER (ORDER BY out.p) > 0",
        "sum(out.n) OVER (ORDER BY out.p ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) > 1",
        "out.p > (SELECT 1)",
    ],
)
def test_conditions_across_rows_are_refused(expr: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[CHECK_ACROSS_ROWS\] check 'c' looks across rows"):
        compile_check(Check("c", expr))


@pytest.mark.parametrize("expr", ["out.p <", "shift(out.p) > 1", "label = 'a'"])
def test_what_does_not_parse_or_reads_something_else_is_refused(expr: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[CHECK_EXPRESSION\] check 'c'"):
        compile_check(Check("c", expr))


def test_null_is_no_failure_and_failures_are_counted() -> None:
    checks = {
        name: compile_check(Check(name, expr))
        for name, expr in {"low": "out.p < 0.5", "null": "out.q > 1", "same": "out.p = in.p"}.items()
    }
    result = run_checks(checks, OUT, OUT)
    assert result.to_pylist() == [{"count": 2, "low": True, "null": False, "same": True}]
    assert run_checks({}, OUT, OUT).to_pylist() == [{"count": 0}]
    assert run_checks(checks, OUT.slice(0, 0), OUT.slice(0, 0)).to_pylist() == []


def test_a_check_is_not_called_count() -> None:
    with pytest.raises(ConfigError, match=r"^\[CHECK_NAME\]"):
        Check("count", "out.p > 0")
