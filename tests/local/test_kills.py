"""Exactly once, whenever the process dies."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

ROOT = Path(__file__).parents[2]
KILLS, FILES = 8, 40


def test_each_row_has_one_prediction_after_random_kills(tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    for number in range(FILES):
        rows = pa.table({"id": [2 * number, 2 * number + 1], "x": pa.array([1, 2], pa.float32())})
        write_deltalake(source, rows, mode="append")
    command = [sys.executable, "-m", "tests.local.killed_job", str(tmp_path)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "udfs"), str(ROOT)])
    chance, seen = random.Random(7), []  # noqa: S311 -- no secret
    for _ in range(KILLS):
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
        ) as job:
            assert job.stdout is not None
            lines = [job.stdout.readline() for _ in range(chance.randint(1, 8))]
            time.sleep(chance.uniform(0, 0.03))
            job.kill()
            seen += lines
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True)
    found = DeltaTable(str(tmp_path / "predictions")).to_pyarrow_table()["id"].to_pylist()
    assert sorted(found) == list(range(2 * FILES))
    assert len(set(seen)) < len(seen)  # some slice was begun twice
