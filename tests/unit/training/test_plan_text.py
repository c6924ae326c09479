"""What EXPLAIN says of a DataFrame, as SQL; that it is right is shown on Spark in ``tests/spark/training``."""

from __future__ import annotations

import pytest

from lakemill.training.plan_text import NotAScanError, ScanPlan, read_plan

TYPES = {"number": "bigint", "score": "float", "label": "string", "ok": "boolean", "day": "date", "at": "timestamp"}
RELATION = "Relation [number#1L,score#2,label#3,ok#4,day#5,at#6] parquet"


def explained(*nodes: str) -> str:
    tree = "\n".join(f"{'   ' * depth}{'+- ' if depth else ''}{node}" for depth, node in enumerate((*nodes, RELATION)))
    return f"== Analyzed Logical Plan ==\n...\n\n== Optimized Logical Plan ==\n{tree}\n\n== Physical Plan ==\n..."


def test_a_scan_has_all_columns_or_those_chosen() -> None:
    assert read_plan(explained(), TYPES) == ScanPlan(("number", "score", "label", "ok", "day", "at"), None)
    assert read_plan(explained("Project [label#3, number#1L]"), TYPES) == ScanPlan(("label", "number"), None)


@pytest.mark.parametrize(
    ("condition", "sql"),
    [
        ("(number#1L >= -5)", "(`number` >= -5)"),
        ("(isnotnull(score#2) AND (score#2 < 0.5))", "((`score` IS NOT NULL) AND (`score` < 0.5))"),
        ("NOT (label#3 = it's)", "(NOT (`label` = 'it\\'s'))"),
        ("(label#3 IN (a,b) OR isnull(label#3))", "((`label` IN ('a', 'b')) OR (`label` IS NULL))"),
        ("(number#1L INSET 1, 10, 2 AND ok#4)", "((`number` IN (1, 10, 2)) AND `ok`)"),
        ("(NOT ok#4 OR (day#5 = 2026-01-31))", "((NOT `ok`) OR (`day` = DATE '2026-01-31'))"),
        ("StartsWith(label#3, a b)", "(`label` LIKE 'a b%')"),
        ("Contains(label#3, /train/)", "(`label` LIKE '%/train/%')"),
    ],
)
def test_a_filter_is_read_back(condition: str, sql: str) -> None:
    assert read_plan(explained("Project [number#1L]", f"Filter {condition}"), TYPES) == ScanPlan(("number",), sql)


@pytest.mark.parametrize(
    "nodes",
    [
        ("Project [(number#1L + 1) AS number#9L]",),
        ("Project [number#9L]",),
        ("Project [number#1L, ... 3 more fields]",),
        ("GlobalLimit 3", "LocalLimit 3"),
        ("Filter (rand(3) < 0.5)",),
        ("Filter ((number#1L % 2) = 0)",),
        ("Filter (at#6 > 2026-01-01 00:00:00)",),
        ("Filter (number#1L > score#2)",),
        ("Filter (score#2 > NaN)",),
        ("Filter (score#2 > 1.0E10)",),
        ("Filter (label#3 = a", "b)"),
        ("Filter Contains(label#3, 5%)",),
        ("Filter (number#1L > 5) trailing",),
        ("Aggregate [number#1L], [number#1L]",),
    ],
)
def test_what_computes_or_is_not_understood_is_no_scan(nodes: tuple[str, ...]) -> None:
    with pytest.raises(NotAScanError):
        read_plan(explained(*nodes), TYPES)


def test_another_source_is_no_scan() -> None:
    text = "== Optimized Logical Plan ==\n{}\n\n== Physical Plan ==\n"
    for node in ("LocalRelation <empty>, [number#1L]", "Range (0, 3, step=1)", "Relation [number#1L] csv"):
        with pytest.raises(NotAScanError):
            read_plan(text.format(node), TYPES)
    with pytest.raises(NotAScanError):
        read_plan("", TYPES)
