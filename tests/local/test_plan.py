"""What a job says of its engine before it runs, and while it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill import PredictConfig, predict_table
from lakemill.pipelines.plan_report import render
from lakemill.plan.job import plan_job

ROWS = 26


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    write_deltalake(tmp_path / "numbers", pa.table({"id": range(ROWS), "x": pa.array(range(ROWS), pa.float32())}))
    return tmp_path


def job(lake: Path, **engine: Any) -> PredictConfig:
    function = {"function": "tests.local.job_functions:slowly", "inputs": {"x": "x"}}
    return PredictConfig.load(
        source={"table": f"{lake}/numbers", "key": ["id"]},
        pipeline={"steps": [{"python": function | {"outputs": {"y": {"dtype": "float32"}}}}]},
        output={"table": f"{lake}/predictions"},
        engine={"name": "local", "batch_rows": 1} | engine,
    )


@pytest.mark.parametrize(
    ("forced", "kind", "reason"),
    [
        ("auto", "processes", "a Python step does the work"),
        ("threads", "threads", "engine.workers says so"),
        ("processes", "processes", "engine.workers says so"),
    ],
)
def test_a_plan_says_which_engine_and_which_workers(lake: Path, forced: str, kind: str, reason: str) -> None:
    report = plan_job(job(lake, workers=forced))
    assert report.engine == "local, as the job says"
    [workers] = [setting for setting in report.settings if setting["name"] == "engine.workers"]
    assert workers["value"].endswith(kind)
    assert workers["reason"].startswith(reason)
    assert render(report).splitlines()[0] == "engine   local, as the job says"


def test_a_plan_starts_neither_java_nor_pyspark(lake: Path) -> None:
    script = (
        "import sys\nfrom lakemill import PredictConfig\nfrom lakemill.plan.job import plan_job\n"
        "print(plan_job(PredictConfig.model_validate_json(sys.stdin.read())).engine)\n"
        "assert 'pyspark' not in sys.modules\n"
    )
    text = job(lake, name="auto").model_dump_json()
    done = subprocess.run([sys.executable, "-c", script], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "local, as nothing here needs Spark\n"), done.stderr


def test_long_work_says_how_far_it_is(lake: Path) -> None:
    lines: list[str] = []
    assert predict_table(job(lake, workers="threads"), progress=lines.append).rows == ROWS
    assert lines[0] == "engine: local, as the job says"
    assert [line for line in lines if re.fullmatch(rf"\d+ of {ROWS} rows, [\d.,]+ rows/s, \d+ s left", line)], lines
