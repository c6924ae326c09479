"""Two runs at once: the lock gives the message, and without it Delta's transactions let nothing double."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, predict_table
from lakemill.engines.choice import open_engine
from lakemill.engines.spark.conflicts import retry_conflicts
from lakemill.predict.commits import commit
from lakemill.predict.locks import hold
from lakemill.predict.modes import run_missing
from lakemill.predict.preparing import prepare
from lakemill.predict.run import Run
from tests.lake import digits_job, onnx_classifier, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 4 images and a model."""
    write_images(spark, tmp_path / "images", 0, 4)
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def paths(lake: Path) -> list[str]:
    return sorted(DeltaTable(f"{lake}/predictions").to_pyarrow_table(columns=["path"])["path"].to_pylist())


def at_once(*runs: Callable[[], object]) -> list[str]:
    """Run all at the same time and return the codes of those that fail."""
    codes: list[str] = []
    start = threading.Barrier(len(runs))

    def one(run: Callable[[], object]) -> None:
        start.wait()
        run()

    with ThreadPoolExecutor(len(runs)) as pool:
        for future in [pool.submit(one, run) for run in runs]:
            try:
                future.result()
            except LakemillError as error:
                codes.append(error.code)
    return codes


def test_the_second_run_stops_or_waits(lake: Path, spark: SparkSession) -> None:
    config, said = digits_job(lake), []
    with hold(config, said.append), pytest.raises(LakemillError, match=r"^\[JOB_RUNNING\] .*\(process \d+ on"):
        predict_table(config, spark)
    codes = at_once(
        lambda: predict_table(config, spark, progress=said.append, wait=True),
        lambda: predict_table(config, spark, progress=said.append, wait=True),
    )
    assert codes == []
    assert any(line.startswith("waiting for the run") for line in said)
    assert len(paths(lake)) == 4
    assert not list((lake / "predictions_checkpoint").glob("*.lock"))


def test_the_lock_of_a_dead_run_is_taken_over(lake: Path) -> None:
    config, said = digits_job(lake), []
    script = (
        "import os, sys; from lakemill import PredictConfig; from lakemill.predict.locks import hold\n"
        "config = PredictConfig.model_validate_json(sys.stdin.read())\n"
        "with hold(config, print): os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", script], input=config.model_dump_json(), text=True, check=False)
    assert dead.returncode == 9
    with hold(config, said.append):
        assert [line.partition(" (")[0] for line in said] == ["taking over the lock that a dead run left"]
    lock = lake / "predictions_checkpoint/digits.lock"
    far = {"id": "x", "host": "elsewhere", "pid": 1, "started": "1", "heartbeat": 0.0}
    lock.write_text(json.dumps(far))
    with hold(config, said.append):
        assert len(said) == 2


def test_without_the_lock_two_runs_of_a_batch_are_one(lake: Path, spark: SparkSession) -> None:
    config = digits_job(lake)
    runs = [prepare(config, open_engine(spark, "digits"), lambda _: None) for _ in range(2)]

    def score(run: Run) -> None:
        table = config.output.table
        commit(run, run.source.rows, lambda scored: run.state.commit(lambda own: run.engine.append(scored, table, own)))

    assert at_once(*(functools.partial(score, run) for run in runs)) == ["RUN_OVERTAKEN"]
    assert len(paths(lake)) == 4


def test_without_the_lock_two_runs_of_a_mode_write_each_row_once(lake: Path, spark: SparkSession) -> None:
    config = digits_job(lake, mode="missing")
    runs = [prepare(config, open_engine(spark, "digits"), lambda _: None) for _ in range(2)]
    codes = at_once(*(lambda run=run: run_missing(run) for run in runs))
    assert codes == ["RUN_OVERTAKEN"]
    assert len(paths(lake)) == 4


def test_different_jobs_share_a_table(lake: Path, spark: SparkSession) -> None:
    configs = [digits_job(lake, name="one"), digits_job(lake, name="two")]
    assert at_once(*(lambda config=config: predict_table(config, spark) for config in configs)) == []
    assert paths(lake) == sorted([f"img/{number:04d}.png" for number in range(4)] * 2)


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


def test_a_column_added_to_the_target_meanwhile_stays(lake: Path, spark: SparkSession) -> None:
    write_images(spark, lake / "images", 4, 4)

    def change(line: str) -> None:
        if line.startswith("batch 0: committed"):
            spark.sql(f"ALTER TABLE delta.`{lake}/predictions` ADD COLUMN reviewed BOOLEAN")

    predict_table(digits_job(lake, "engine.max_bytes_per_trigger=1"), spark, progress=change)
    assert len(paths(lake)) == 8
    write_images(spark, lake / "images", 8, 1)
    assert predict_table(digits_job(lake), spark).rows == 1
    assert DeltaTable(f"{lake}/predictions").to_pyarrow_table()["reviewed"].to_pylist() == [None] * 9
