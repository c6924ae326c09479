"""Long work on Spark says how far it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill import PredictConfig, predict_table
from lakemill.engines.spark import task_pace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_long_work_says_how_far_it_is(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_pace, "EVERY_SECONDS", 0.2)  # of a clock that is faster than the user's
    for number in range(4):  # a file is a task
        write_deltalake(
            tmp_path / "numbers", pa.table({"id": [number], "x": pa.array([1], pa.float32())}), mode="append"
        )
    function = {"function": "tests.local.job_functions:slowly", "inputs": {"x": "x"}}
    job = PredictConfig.load(
        source={"table": f"{tmp_path}/numbers", "key": ["id"]},
        pipeline={"steps": [{"python": function | {"outputs": {"y": {"dtype": "float32"}}}}]},
        output={"table": f"{tmp_path}/predictions"},
        mode="full",
    )
    lines: list[str] = []
    assert predict_table(job, spark, progress=lines.append).rows == 4
    assert [line for line in lines if re.fullmatch(r"\d+ of \d+ tasks(, \d+ s left)?", line)], lines
