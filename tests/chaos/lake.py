"""A small lake for jobs that are killed: numbers in, doubled numbers out, and what an independent reader says of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("job.py")
ROWS_ADDED = 12
LIFE_SECONDS = 400

FUNCTION = '''
import os
import signal
from pathlib import Path

import numpy as np

LAKE = Path({lake!r})


def double(inputs):
    """Double the numbers; in every other life of the job, those that end with 3 fail."""
    numbers = inputs["number"]
    victim = LAKE / "kill_while_scoring"
    if victim.exists():
        os.killpg(int(victim.read_text()), signal.SIGKILL)
    if int((LAKE / "life").read_text()) % 2 and (numbers % 10 == 3).any():
        raise ValueError("not in this life")
    return {{"double": numbers * 2}}
'''


def make_lake(lake: Path) -> None:
    """Put the scoring function there, and the first rows."""
    (lake / "doubling.py").write_text(FUNCTION.format(lake=str(lake)))
    (lake / "life").write_text("0")
    add_rows(lake)


def add_rows(lake: Path) -> None:
    """Append the next numbers to the source, by the independent writer."""
    source = lake / "numbers"
    start = DeltaTable(source).version() + 1 if DeltaTable.is_deltatable(str(source)) else 0
    numbers = pa.array(range(start * ROWS_ADDED, (start + 1) * ROWS_ADDED), pa.int64())
    write_deltalake(source, pa.table({"number": numbers}), mode="append")


def config(lake: Path, engine: str = "auto") -> PredictConfig:
    """Return the job that is killed."""
    step = {"function": "doubling:double", "inputs": {"number": "number"}, "outputs": {"double": {"dtype": "int64"}}}
    return PredictConfig.load(
        name="chaos",
        source={"table": f"{lake}/numbers", "key": ["number"]},
        pipeline={"steps": [{"python": step}]},
        output={"table": f"{lake}/predictions"},
        quarantine={"table": f"{lake}/quarantine"},
        engine={"name": engine},
    )


def start_life(lake: Path, *arguments: str, engine: str = "spark", script: Path = JOB) -> subprocess.Popen[bytes]:
    """Start the job in a process group of its own, with the JVM in it; its last words are in ``<lake>/log``."""
    life = lake / "life"
    life.write_text(str(int(life.read_text()) + 1))
    (lake / "kill_while_scoring").unlink(missing_ok=True)
    paths = os.pathsep.join([str(ROOT), str(lake), *sys.path])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYSPARK_")}
    with (lake / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, script, lake, engine, *arguments],
            env=environment | {"PYTHONPATH": paths, "LAKEMILL_FAST_START": "1"},
            cwd=lake,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a life and its JVM the hard way."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a predictions table; all empty if nothing is.

    Args:
        lost: Source rows without a prediction.
        doubled: Source rows with more than one.
        wrong: Rows with a wrong result, a wrong source version, or another error than their copy in the quarantine.
    """

    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    wrong: tuple[int, ...]


def judge(lake: Path, version: int | None = None) -> Verdict:
    """Compare the predictions with what a clean run would have made of the source, by the independent reader.

    Args:
        lake: The folder.
        version: Of the predictions; None for the newest, with which the quarantine is compared too.
    """
    rows = DeltaTable(lake / "predictions", version=version).to_pyarrow_table().to_pylist()
    counts = Counter(row["number"] for row in rows)
    newest = max(row["metadata"]["source_version"] for row in rows)
    expected = set(range((newest + 1) * ROWS_ADDED))
    wrong = {row["number"] for row in rows if not _is_right(row)}
    if version is None:
        expected |= set(range((DeltaTable(lake / "numbers").version() + 1) * ROWS_ADDED))
        copies = DeltaTable(lake / "quarantine").to_pyarrow_table()["number"].to_pylist()
        failed = Counter(row["number"] for row in rows if row["error"])
        wrong |= (Counter(copies) - failed).keys() | (failed - Counter(copies)).keys()
    return Verdict(
        tuple(sorted(expected - counts.keys())),
        tuple(sorted(number for number, count in counts.items() if count > 1)),
        tuple(sorted(wrong)),
    )


def _is_right(row: dict[str, Any]) -> bool:
    is_result = row["error"] is None and row["out"]["double"] == 2 * row["number"]
    is_failure = row["error"] is not None and row["number"] % 10 == 3 and row["error"]["code"] == "MODEL_FAILED"
    return (is_result or is_failure) and row["metadata"]["source_version"] >= row["number"] // ROWS_ADDED
