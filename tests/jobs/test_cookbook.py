"""Every question of the cookbook has an answer in the demo's lake, and the answers agree with the tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakemill.demo.walk import DemoResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

COOKBOOK = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")
QUESTIONS = dict(re.findall(r"^\*\*(\d+)\. .*?^```sql\n(.*?)^```$", COOKBOOK, re.MULTILINE | re.DOTALL))


def answer(number: int, demo: DemoResult, spark: SparkSession) -> DataFrame:
    return spark.sql(QUESTIONS[str(number)].replace("`lake/", f"`{demo.lake}/"))


def test_there_are_fifteen_questions() -> None:
    assert list(QUESTIONS) == [str(number) for number in range(1, 16)]
    assert COOKBOOK.count("```sql") == len(QUESTIONS)


@pytest.mark.parametrize("number", range(1, 16))
def test_the_question_has_an_answer(number: int, demo: DemoResult, spark: SparkSession) -> None:
    assert answer(number, demo, spark).head() is not None


def test_the_answers_agree_with_the_demo(demo: DemoResult, spark: SparkSession) -> None:
    errors = sum(row["rows"] for row in answer(8, demo, spark).collect())
    results = sum(row["rows"] for row in answer(1, demo, spark).collect())
    assert errors == demo.errors
    assert results + errors == demo.rows
    right = sum(row["rows"] * row["accuracy"] for row in answer(4, demo, spark).collect())
    assert right / results == pytest.approx(demo.accuracy, abs=0.01)
    wrong = sum(row["rows"] for row in answer(5, demo, spark).collect())
    assert wrong == pytest.approx(results - right)
    assert sum(row["files"] for row in answer(10, demo, spark).collect()) == demo.rejected
    assert answer(7, demo, spark).count() + demo.rows == demo.images
