"""How long a row waits in a stream: a trickle of small appends, from the commit in the source to that in the output.

    python benchmarks/stream_latency.py --engine local --json docs/benchmarks/stream_latency.json \
        --plot docs/benchmarks/stream_latency.png

What the JSON file holds of the other engine is kept.

Another writer (``deltalake``) appends some rows every second or two; the stream has a trigger of one second. Times are
those of the files of both tables' logs, so what is measured is when another reader could have seen the rows. The first
appends warm everything up and do not count.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from linear_model import write_linear_model
from results import panels, parser, publish

from lakemill import PredictConfig, get_session, predict_stream

PACKAGES = ("lakemill", "pyspark", "delta-spark", "deltalake", "onnxruntime")
ROWS, WARM_UP = 20, 10
INPUTS = 64


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--appends", type=int, default=60, help="that count, after the warm-up")
    command.add_argument("--cores", type=int, default=2, help="of Spark")
    command.add_argument("--engine", choices=["local", "spark"], default="spark")
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        seconds = measure(Path(scratch), options.appends, options.cores, options.engine)
    found = {
        "p50_seconds": round(float(np.percentile(seconds, 50)), 3),
        "p99_seconds": round(float(np.percentile(seconds, 99)), 3),
        "appends": len(seconds),
        "rows_each": ROWS,
        "seconds": [round(one, 3) for one in seconds],
        "trigger": "1 second",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    result = {"engines": known.get("engines", {}) | {options.engine: found}}
    publish(result, PACKAGES, options, plot)


def measure(lake: Path, appends: int, cores: int, engine: str) -> list[float]:
    """Return how long each append waited, in seconds."""
    write_linear_model(lake / "model.onnx", ("pixels", INPUTS), ("logits", 10))
    append(lake)
    config = PredictConfig.load(
        name="latency",
        source={"table": f"{lake}/source", "key": ["id"]},
        pipeline={"steps": [{"model": {"uri": f"{lake}/model.onnx"}}]},
        output={"table": f"{lake}/predictions"},
        trigger="1 second",
        engine={"name": engine},
    )
    threading.Thread(target=trickle, args=(lake, WARM_UP + appends), daemon=True).start()
    session = get_session("latency", {"spark.master": f"local[{cores}]"}) if engine == "spark" else None
    predict_stream(config, session, progress=print)
    source, scored = commit_times(lake / "source"), scored_times(lake / "predictions")
    return [
        scored[min(last for last in scored if last >= number)] - source[number]
        for number in range(WARM_UP + 1, WARM_UP + appends + 1)
    ]


def trickle(lake: Path, count: int) -> None:
    """Append again and again, once the stream is up, and stop it when all is scored."""
    chance = random.Random(1)  # noqa: S311 -- the same pauses in every run
    while not DeltaTable.is_deltatable(f"{lake}/predictions") or DeltaTable(lake / "predictions").version() < 1:
        time.sleep(0.2)
    for _ in range(count):
        time.sleep(chance.uniform(1, 2))
        append(lake)
    while DeltaTable(lake / "predictions").count() < (count + 1) * ROWS:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def append(lake: Path) -> None:
    start = time.time_ns()
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(ROWS * INPUTS, np.float32)), INPUTS)
    rows = pa.table({"id": pa.array(range(start, start + ROWS), pa.int64()), "pixels": pixels})
    write_deltalake(lake / "source", rows, mode="append")


def commit_times(table: Path) -> dict[int, float]:
    return {int(file.stem): file.stat().st_mtime for file in (table / "_delta_log").glob("*.json")}


def scored_times(table: Path) -> dict[int, float]:
    """Return when rows were committed, by the source's version that the rows of a file say."""
    found: dict[int, float] = {}
    for version, when in commit_times(table).items():
        lines = (table / "_delta_log" / f"{version:020d}.json").read_text().splitlines()
        for action in (json.loads(line) for line in lines):
            if "add" in action:
                rows = pq.read_table(table / action["add"]["path"], columns=["metadata"])
                found |= dict.fromkeys((row["source_version"] for row in rows["metadata"].to_pylist()), when)
    return found


def plot(result: dict[str, Any]) -> Any:
    """Draw each append's seconds as a dot, and two percentiles, one panel an engine."""
    figure, panel = panels(len(result["engines"]), 3 * len(result["engines"]))
    for axes, (engine, found) in zip(panel, result["engines"].items(), strict=True):
        axes.plot(found.get("seconds", []), ".", color="#d1603d")
        for share in (50, 99):
            value = found[f"p{share}_seconds"]
            axes.axhline(value, linewidth=0.8, color="grey")
            axes.annotate(f"p{share} {value:.1f} s", (0, value), textcoords="offset points", xytext=(2, 3))
        axes.set(xlabel="append", ylabel="seconds, commit to commit", ylim=(0, None))
        axes.set_title(f"Stream latency on {engine}, 1 s trigger", loc="left", fontsize=10)
    return figure


if __name__ == "__main__":
    main()
