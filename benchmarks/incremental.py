"""Incremental runs: how long one takes that finds nothing new, and what bounded commits cost beside one full run.

    python benchmarks/incremental.py --json docs/benchmarks/incremental.json

``idle``: the source has 10, 1,000 and 10,000 commits, each of one file, and a job has scored them all. Then the job is
run again, in the same session. ``incremental``: the same photographs through the same network (those of ``predict.py``)
by ``mode: full``, one commit, and by ``mode: incremental`` with a new output, in several commits; the order changes
with each round, and the first round warms both up and does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predict_data import ingest_photos, write_network, write_photos
from predict_peers import PHOTO
from results import parser, publish

from lakemill import PredictConfig, get_session, predict_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGES = ("lakemill", "pyspark", "delta-spark", "deltalake", "onnxruntime", "pillow", "numpy", "pyarrow")
COMMITS_A_CHECKPOINT = 1000
FIRST_ROWS = 10
FUNCTION = {
    "function": "trivial_model:largest",
    "inputs": {"x": "x"},
    "outputs": {"y": {"dtype": "float64", "shape": []}},
}


def main() -> None:
    options = _options()
    spark = get_session("benchmark", {"spark.master": f"local[{options.cores}]"})
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        result = {
            "idle_seconds": {
                commits: idle_seconds(folder / f"idle_{commits}", commits, options.repeats, spark)
                for commits in options.commits
            },
            "work": measure(folder, options.photos, options.batches, options.repeats, spark)
            if options.photos
            else None,
            "cores": options.cores,
        }
    publish(result, PACKAGES, options)


def idle_seconds(folder: Path, commits: int, repeats: int, spark: SparkSession) -> list[float]:
    """Return how long runs take that find nothing new in a table of so many commits; the first is left out."""
    shutil.rmtree(folder, ignore_errors=True)
    write_commits(folder / "source", commits, spark)
    job = PredictConfig.load(
        None,
        (),
        name="idle",
        source={"table": str(folder / "source"), "key": ["id"]},
        pipeline={"steps": [{"python": FUNCTION}]},
        output={"table": str(folder / "predictions")},
    )
    assert predict_table(job, spark).rows == commits * FIRST_ROWS
    seconds = []
    for _ in range(repeats + 1):
        result = predict_table(job, spark)
        assert result.batches == 0
        seconds.append(round(result.seconds, 2))
        print(f"{commits} commits: nothing new in {seconds[-1]} s", file=sys.stderr, flush=True)
    return seconds[1:]


def write_commits(table: Path, commits: int, spark: SparkSession) -> None:
    """Make a table whose commits add a file each; all but the first are written as Delta's log has them.

    Args:
        table: Is made.
        commits: How many; a checkpoint comes after each ``COMMITS_A_CHECKPOINT`` and at the end.
        spark: Writes the first.
    """
    from deltalake import DeltaTable

    spark.range(FIRST_ROWS).selectExpr("id", "rand(0) AS x").coalesce(1).write.format("delta").save(str(table))
    log = table / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    add = next(action["add"] for action in actions if "add" in action)
    first = table / add["path"]
    for number in range(1, commits):
        name = f"part-{number:05}-{uuid.uuid4()}-c000.snappy.parquet"
        os.link(first, table / name)
        now = int(time.time() * 1000)
        info = {
            "timestamp": now,
            "operation": "WRITE",
            "operationParameters": {"mode": "Append"},
            "isBlindAppend": True,
        }
        lines = [{"commitInfo": info}, {"add": add | {"path": name, "modificationTime": now}}]
        (log / f"{number:020}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if number % COMMITS_A_CHECKPOINT == 0:
            DeltaTable(str(table)).create_checkpoint()
    DeltaTable(str(table)).create_checkpoint()


def measure(folder: Path, photos: int, batches: int, repeats: int, spark: SparkSession) -> dict[str, Any]:
    """Score the same photographs by ``full`` and ``incremental`` in turn; the ratio is of the rounds' medians."""
    images, network = folder / f"images_{photos}", folder / "squeezenet.onnx"
    if not images.exists():
        write_photos(folder / "photos", photos)
        ingest_photos(folder / "photos", images, spark)
    write_network(network)
    total = sum(file.stat().st_size for file in images.glob("*.parquet"))
    seconds: dict[str, list[float]] = {"full": [], "incremental": []}
    commits = 0
    for number in range(repeats + 1):
        for mode in ("full", "incremental") if number % 2 else ("incremental", "full"):
            for old in folder.glob("scored*"):
                shutil.rmtree(old)
            result = predict_table(photo_job(images, network, folder / "scored", mode, total // batches), spark)
            assert result.rows == photos
            print(
                f"round {number}: {mode} {result.seconds:.1f} s, {result.batches} commits", file=sys.stderr, flush=True
            )
            if number:
                seconds[mode].append(round(result.seconds, 2))
            commits = max(commits, result.batches)
    ratio = statistics.median(seconds["incremental"]) / statistics.median(seconds["full"])
    return {"photos": photos, "bytes": total, "commits": commits, "seconds": seconds, "ratio": round(ratio, 3)}


def photo_job(images: Path, network: Path, output: Path, mode: str, trigger_bytes: int) -> PredictConfig:
    """Return the job of the predict benchmark, with bounded commits."""
    return PredictConfig.load(
        None,
        (),
        name="photos",
        source={"table": str(images)},
        pipeline={
            "steps": [
                {"image": PHOTO},
                {"model": {"uri": str(network)}},
                {"format": {"input": "logits", "softmax": True, "top_k": 5}},
            ]
        },
        output={"table": str(output)},
        mode=mode,
        engine={"max_bytes_per_trigger": trigger_bytes},
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--commits", type=int, nargs="*", default=[10, 1000, 10_000])
    options.add_argument("--photos", type=int, default=12_000, help="0 leaves this part out")
    options.add_argument("--batches", type=int, default=4, help="into about how many commits incremental runs go")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--cores", type=int, default=os.cpu_count())
    options.add_argument("--folder", type=Path, help="keep the photographs here, and use them again")
    return options.parse_args()


if __name__ == "__main__":
    main()
