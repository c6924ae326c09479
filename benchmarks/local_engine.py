"""The local engine's whole command at a shell: seconds and peak memory from 1,000 to 1,000,000 small rows.

python -m benchmarks.local_engine [--rows 1000 100000 1000000] [--kind threads]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FEATURES = 20
ONE = "--one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--kind", choices=["threads", "processes"], default=None)
    parser.add_argument(ONE, type=Path, help="score one lake and leave; what the others measure")
    arguments = parser.parse_args()
    if arguments.one is not None:
        score(arguments.one, arguments.kind)
        return
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            lake = Path(folder)
            make_lake(lake, rows)
            command = [sys.executable, "-m", "benchmarks.local_engine", ONE, str(lake)]
            command += ["--kind", arguments.kind] if arguments.kind else []
            started = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured: dict[str, Any] = json.loads(done.stdout)
            measured |= {"rows": rows, "whole_seconds": round(time.perf_counter() - started, 2)}
            print(json.dumps(measured), flush=True)


def make_lake(lake: Path, rows: int) -> None:
    """Write a table of small rows and an ONNX classifier for them."""
    import numpy as np
    import pyarrow as pa
    from deltalake import write_deltalake

    from tests.lake import onnx_classifier

    onnx_classifier(lake / "model.onnx", inputs=FEATURES)
    random = np.random.default_rng(0)
    for start in range(0, rows, 250_000):
        count = min(250_000, rows - start)
        values = random.random((count, FEATURES), dtype=np.float32)
        pixels = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), FEATURES).cast(pa.list_(pa.float32()))
        table = pa.table({"id": pa.array(np.arange(start, start + count)), "pixels": pixels})
        write_deltalake(str(lake / "source"), table, mode="append")


def score(lake: Path, kind: str | None) -> None:
    """Score the table into another one, and print what it took inside."""
    began = time.perf_counter()
    from lakemill.engines.engine import Transaction
    from lakemill.engines.local.engine import LocalEngine
    from lakemill.engines.schemas import predictions_schema, tensors_of
    from lakemill.pipelines.planning import make_plan
    from lakemill.pipelines.resolving import resolve
    from lakemill_udfs.pipeline import Pipeline

    output = str(lake / "predictions")
    with LocalEngine(forced=kind) as engine:
        imported = time.perf_counter()
        source = engine.snapshot(str(lake / "source"))
        assert source is not None
        pipeline = resolve(Pipeline.from_dict({"steps": [{"model": {"uri": str(lake / "model.onnx")}}]}))
        plan = make_plan(pipeline, tensors_of(source.schema), passthrough=("id",), batch_rows=65_536)
        plan = engine.prepare(plan, source)
        engine.make(output, predictions_schema(plan, source.schema))
        planned = time.perf_counter()
        with engine.scored(engine.rows(source), plan, into=output) as scored:
            made = time.perf_counter()
            engine.append(scored, output, Transaction("benchmark", 0))
            rows = scored.rows
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    times = {"import": imported - began, "plan": planned - imported, "score": made - planned, "commit": done - made}
    print(json.dumps({name: round(seconds, 3) for name, seconds in times.items()} | {"scored": rows, "peak_mib": peak}))


if __name__ == "__main__":
    main()
