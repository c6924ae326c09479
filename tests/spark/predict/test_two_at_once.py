"""Two writers at once: Spark's upkeep beside a run, and one batch twice, which Delta skips by its transaction."""

from __future__ import annotations

import functools
import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from lakemill import predict_table
from lakemill.engines.choice import open_engine
from lakemill.engines.needs import Needs
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.predict.commits import commit
from lakemill.predict.preparing import prepare
from lakemill.predict.run import Run
from tests.lake import at_once, digits_job, onnx_classifier, paths_of, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 4 images and a model."""
    write_images(spark, tmp_path / "images", 0, 4)
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def test_upkeep_of_the_target_meanwhile_loses_nothing(lake: Path, spark: SparkSession) -> None:
    table, other = f"delta.`{lake}/predictions`", "metadata.job = 'other'"
    predict_table(digits_job(lake, name="other"), spark)
    for start in range(4, 16, 4):
        write_images(spark, lake / "images", start, 4)
    done = threading.Event()

    def score() -> None:
        try:
            predict_table(digits_job(lake, "engine.max_bytes_per_trigger=1"), spark)  # a batch for each file
            assert predict_table(digits_job(lake, mode="where", source__where="label = '1'"), spark).rows == 5
        finally:
            done.set()

    def look_after() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            delete = f"DELETE FROM {table} WHERE {other} AND path = 'img/{number:04d}.png'"  # noqa: S608 -- own path
            for statement in (delete, f"OPTIMIZE {table}"):
                retry_conflicts(functools.partial(spark.sql, statement), table)

    assert at_once(score, look_after) == []
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    scored = sorted(row["path"] for row in rows if row["metadata"]["job"] == "digits")
    assert scored == [f"img/{number:04d}.png" for number in range(16)]


def test_without_the_lock_two_runs_of_a_batch_are_one(lake: Path, spark: SparkSession) -> None:
    config = digits_job(lake)
    runs = [prepare(config, open_engine(spark, Needs("digits")), lambda _: None) for _ in range(2)]

    def score(run: Run) -> None:
        table = config.output.table
        commit(run, run.source.rows, lambda scored: run.state.commit(lambda own: run.engine.append(scored, table, own)))

    assert at_once(*(functools.partial(score, run) for run in runs)) == ["RUN_OVERTAKEN"]
    assert len(paths_of(lake)) == 4
