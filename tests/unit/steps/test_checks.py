"""Checks judge rows one by one; what looks across rows would depend on the batching and is refused."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pytest

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.checks import compile_check, run_checks
from lakemill_udfs.steps.declared import Check

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


P = pl.col("out").struct.field("p")


@pytest.mark.parametrize(
    "expression",
    [
        lambda: P < 0.5,
        lambda: pl.col("out").struct.field("list").list.sum() == 3,
        lambda: pl.when(P > 0.2).then(pl.col("in").struct.field("flag")).otherwise(False),
        lambda: pl.col("out").struct.field("s").str.starts_with("a") & P.is_not_null(),
        lambda: P.is_between(0.1, 0.4) | P.is_nan(),
    ],
)
def test_a_function_may_return_the_expression(expression: Callable[[], pl.Expr]) -> None:
    result = run_checks({"c": compile_check(Check("c", expression))}, OUT, OUT)
    assert result.to_pylist() == [{"count": 1, "c": True}]


@pytest.mark.parametrize(
    "expression",
    [
        lambda: P.mean() < P,
        lambda: P.shift(1) < P,
        lambda: P.cum_sum() > 1,
        lambda: P.rank() == 1,
        lambda: P.sort() > 0.1,
        lambda: P.max().over(pl.col("out").struct.field("s")) > 0,
        lambda: P.rolling_mean(2) > 0,
        lambda: P.diff() > 0,
        P.is_duplicated,
        lambda: P.fill_null(strategy="forward") > 0,
        lambda: P.head(1) > 0,
        lambda: P.reverse() > 0,
        lambda: P.filter(P > 0) > 0,
        lambda: pl.len() > 1,
        lambda: P.is_in(P.unique()),
        lambda: P.interpolate() > 0,
        P.is_first_distinct,
    ],
)
def test_an_expression_across_rows_is_refused(expression: Callable[[], pl.Expr]) -> None:
    with pytest.raises(ConfigError, match=r"^\[CHECK_ACROSS_ROWS\] check 'c' looks across rows"):
        compile_check(Check("c", expression))


@pytest.mark.filterwarnings("ignore:Expr.map_elements")
@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("tests.unit.features:no_expression", "got bool"),
        (lambda: P.map_elements(lambda p: p > 0, return_dtype=pl.Boolean), "calls Python for its rows"),
        (lambda x: x, "takes no arguments"),
        (lambda: pl.col("label") == "a", "reads 'label'"),
    ],
)
def test_what_is_no_expression_over_in_and_out_is_refused(function: object, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[CHECK_EXPRESSION\] check 'c'.*{said}"):
        compile_check(Check("c", function))


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
