"""Rows of numbers that nothing looks at first are scored as they are written: the counts, and what may come between."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.engines.choice import open_engine
from lakemill.engines.needs import Needs
from lakemill.engines.relations import Scored
from lakemill.engines.spark import ahead
from lakemill.engines.spark.session import settings_held
from lakemill.predict.commits import commit
from lakemill.predict.preparing import prepare
from lakemill.predict.run import Run
from tests.lake import at_once, numbers_job
from tests.spark_commits import BY_LOCAL_ENGINE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FUNCTIONS = """
import os
from pathlib import Path

LAKE = Path({lake!r})


def seen(columns):
    with (LAKE / "seen").open("a") as file:
        file.writelines(f"{{x}}\\n" for x in columns["x"].tolist())


def even(columns):
    if (columns["x"] % 2 == 1).any():
        raise ValueError("odd")
    return {{"y": columns["x"] * 2.0}}


def counted(columns):
    seen(columns)
    return {{"y": columns["x"] * 2.0}}


def meddles(columns):
    seen(columns)
    try:
        taken = (LAKE / "meddle").rename(LAKE / f"meddle-{{os.getpid()}}")  # one worker's, whoever is first
    except FileNotFoundError:
        taken = None
    if taken is not None:
        from deltalake import DeltaTable

        table, what = DeltaTable(LAKE / "predictions"), taken.read_text()
        if what == "property":
            table.alter.set_table_properties({{"delta.logRetentionDuration": "interval 9 days"}})
        else:
            table.delete(what)
    return {{"y": columns["x"] * 2.0}}
"""


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder with a source of 30 numbers in three files, and functions that score them."""
    (tmp_path / "scores_of_numbers.py").write_text(FUNCTIONS.format(lake=str(tmp_path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    for start in (0, 10, 20):
        add(tmp_path, start)
    yield tmp_path
    sys.modules.pop("scores_of_numbers", None)


@pytest.fixture
def _by_local_engine(spark: SparkSession) -> Iterator[None]:
    """Leave few rows to the local engine, as users do."""
    with settings_held(spark, BY_LOCAL_ENGINE):
        yield


MANY = 25_000
"""Rows of a commit that the driver does not hold."""


def add(lake: Path, start: int, count: int = 10) -> None:
    numbers = list(range(start, start + count))
    write_deltalake(lake / "numbers", pa.table({"id": numbers, "x": numbers}), mode="append")


def job(lake: Path, function: str) -> PredictConfig:
    config = numbers_job(lake)
    return config.model_copy(update={"pipeline": numbers_job(lake, pipeline__steps=[step(function)]).pipeline})


def step(function: str) -> dict[str, object]:
    outputs = {"y": {"dtype": "float64"}}
    return {"python": {"function": f"scores_of_numbers:{function}", "inputs": {"x": "x"}, "outputs": outputs}}


def ids(lake: Path) -> list[int]:
    return sorted(DeltaTable(lake / "predictions").to_pyarrow_table(columns=["id"])["id"].to_pylist())


def test_rows_errors_and_tasks_are_counted(lake: Path, spark: SparkSession) -> None:
    result = predict_table(job(lake, "even"), spark)
    assert (result.rows, result.rows_error, result.batches) == (30, 15, 1)
    runs = DeltaTable(lake / "predictions_runs").to_pyarrow_table().to_pylist()
    assert [(run["rows"], run["rows_error"]) for run in runs] == [(30, 15)]
    tasks = DeltaTable(lake / "predictions_tasks").to_pyarrow_table().to_pylist()
    assert (sum(task["rows"] for task in tasks), sum(task["rows_error"] for task in tasks)) == (30, 15)
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    assert sum(row["error"] is not None for row in rows) == 15
    assert {row["metadata"]["run_id"] for row in rows} == {result.run_id}
    assert all(len(row["metadata"]["elapsed_ns"]) == 1 for row in rows)


def test_each_row_is_scored_once(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "counted"), spark)
    assert sorted(map(int, (lake / "seen").read_text().split())) == list(range(30))
    assert ids(lake) == list(range(30))


def test_a_commit_that_conflicts_is_scored_and_counted_again(lake: Path, spark: SparkSession) -> None:
    (lake / "meddle").write_text("property")
    result = predict_table(job(lake, "meddles"), spark)
    assert (result.rows, result.rows_error) == (30, 0)
    assert ids(lake) == list(range(30))
    assert len((lake / "seen").read_text().split()) == 60


@pytest.mark.usefixtures("_by_local_engine")
def test_few_rows_are_scored_once_whatever_comes_between(lake: Path, spark: SparkSession) -> None:
    (lake / "meddle").write_text("property")
    result = predict_table(job(lake, "meddles"), spark)
    assert (result.rows, result.rows_error) == (30, 0)
    assert ids(lake) == list(range(30))
    assert len((lake / "seen").read_text().split()) == 30
    add(lake, 30)
    (lake / "meddle").write_text("id = 3")
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_CHANGED\] .*nothing more was written"):
        predict_table(job(lake, "meddles"), spark)
    assert ids(lake) == [number for number in range(30) if number != 3]


@pytest.mark.usefixtures("_by_local_engine")
def test_few_rows_and_many_are_one_job(lake: Path, spark: SparkSession) -> None:
    table, until = f"delta.`{lake}/predictions`", 30
    for count in (10, MANY, 10):
        predict_table(job(lake, "even"), spark)
        add(lake, until, count)
        until += count
    result = predict_table(job(lake, "even"), spark)
    assert (result.rows, result.rows_error) == (10, 5)
    assert ids(lake) == list(range(until))
    by_spark = spark.sql(f"SELECT count(*) AS rows, count(DISTINCT id) AS ids, count(out.y) AS values FROM {table}")  # noqa: S608 -- a path of the test
    assert by_spark.collect()[0].asDict() == {"rows": until, "ids": until, "values": until // 2}
    kinds = {row["metadata"]["pipeline_version"] for row in spark.table(table).select("metadata").distinct().collect()}
    assert kinds == {result.pipeline_version}


@pytest.mark.usefixtures("_by_local_engine")
def test_few_rows_go_into_a_table_that_only_spark_writes(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "counted"), spark)
    spark.sql(f"ALTER TABLE delta.`{lake}/predictions` ADD CONSTRAINT some CHECK (id >= 0)")
    add(lake, 30)
    assert predict_table(job(lake, "counted"), spark).rows == 10
    assert ids(lake) == list(range(40))


@pytest.mark.usefixtures("_by_local_engine")
def test_a_new_output_has_what_its_session_gives_new_tables(lake: Path, spark: SparkSession) -> None:
    with settings_held(spark, {"spark.databricks.delta.properties.defaults.appendOnly": "true"}):
        predict_table(job(lake, "counted"), spark)
    assert DeltaTable(lake / "predictions").metadata().configuration["delta.appendOnly"] == "true"
    assert ids(lake) == list(range(30))


def test_rows_that_go_while_others_are_scored_are_missed_aloud(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "meddles"), spark)
    add(lake, 30)
    (lake / "meddle").write_text("id = 3")
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_CHANGED\] .*\n?.*mode: missing"):
        predict_table(job(lake, "meddles"), spark)
    assert predict_table(job(lake, "meddles").model_copy(update={"mode": "missing"}), spark).rows == 1
    assert ids(lake) == list(range(40))


def test_without_the_lock_two_runs_make_one_commit(lake: Path, spark: SparkSession) -> None:
    config = job(lake, "counted")
    runs = [prepare(config, open_engine(spark, Needs("numbers")), lambda _: None) for _ in range(2)]

    def score(run: Run) -> None:
        table = config.output.table

        def write(scored: Scored) -> bool:
            return run.state.commit(lambda own: run.engine.append(scored, table, own))

        commit(run, run.source.rows, write, keep=False)

    assert at_once(*(functools.partial(score, run) for run in runs)) == ["RUN_OVERTAKEN"]
    assert ids(lake) == list(range(30))


def test_a_full_run_scores_each_row_once_and_replaces_its_own(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "even"), spark)
    full = job(lake, "counted").model_copy(update={"mode": "full"})
    result = predict_table(full, spark)
    assert (result.rows, result.rows_error, result.batches) == (30, 0, 1)
    assert sorted(map(int, (lake / "seen").read_text().split())) == list(range(30))
    assert ids(lake) == list(range(30))
    add(lake, 30)
    assert predict_table(job(lake, "counted"), spark).rows == 10
    assert ids(lake) == list(range(40))


def test_rows_that_come_while_a_first_run_goes_on_are_scored_once(lake: Path, spark: SparkSession) -> None:
    def come(line: str) -> None:
        if line.startswith("pipeline"):
            add(lake, 30)

    predict_table(job(lake, "counted"), spark, progress=come)
    predict_table(job(lake, "counted"), spark)
    assert ids(lake) == list(range(40))
    assert len((lake / "seen").read_text().split()) == 40


def test_run_tables_that_only_spark_writes_get_their_rows(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "counted"), spark)
    spark.sql(
        f"ALTER TABLE delta.`{lake}/predictions_runs` SET TBLPROPERTIES "
        "('delta.columnMapping.mode' = 'name', 'delta.minReaderVersion' = '2', 'delta.minWriterVersion' = '5')"
    )
    add(lake, 30)
    predict_table(job(lake, "counted"), spark)
    runs = spark.table(f"delta.`{lake}/predictions_runs`").collect()
    assert sorted(run["rows"] for run in runs) == [10, 30]


def test_a_run_with_nothing_new_has_no_worker_load_a_model(lake: Path, spark: SparkSession) -> None:
    predict_table(job(lake, "even"), spark)
    assert ahead.LOADED
    ahead.LOADED.clear()
    assert predict_table(job(lake, "even"), spark).rows == 0
    assert not ahead.LOADED
    add(lake, 30)
    assert predict_table(job(lake, "even"), spark).rows == 10
    assert ahead.LOADED
