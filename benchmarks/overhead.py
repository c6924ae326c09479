"""What Lakemill adds to a framework's own call on a ready array, in processor time, which other work moves little.

python -m benchmarks.overhead [--rounds 40] [--json FILE]

50,000 rows of 20 ``float32``, one thread each. The framework is called in batches of as many rows as Lakemill's plan
has, in turn with ``infer`` for all of them; ``more`` is the median over rounds of the ratio of the two, with its
quartiles. ``milliseconds_a_call`` is the framework's own, ``more_milliseconds_a_call`` what comes on top.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # before any of them is imported

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.frameworks import BATCH, FEATURES, save
from benchmarks.results import parser, publish

FIRST = 4
"""Rounds that do not count."""


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--rounds", type=int, default=40)
    options = options_of.parse_args()
    data = np.random.default_rng(0).random((BATCH, FEATURES), dtype="float32")
    found: dict[str, Any] = {}
    for name, model, flavor, call in models(data):
        with tempfile.TemporaryDirectory() as folder:
            save(model, flavor, Path(folder) / "model", data, call)
            found[name] = compared(Path(folder) / "model", call, data, options.rounds)
        print(name, found[name], file=sys.stderr, flush=True)
    publish({"models": found}, ["lakemill", "scikit-learn", "xgboost-cpu", "onnxruntime"], options)


def models(data: np.ndarray[Any, Any]) -> Iterator[tuple[str, Any, str, Callable[[Any], Any]]]:
    """Yield models, each with MLflow's flavor and the framework's own call."""
    import onnxruntime
    import xgboost
    from skl2onnx import to_onnx
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.neural_network import MLPRegressor

    few = data[:20_000]
    labels = (few[:, 0] + few[:, 1] > 1).astype(int)
    boosting = HistGradientBoostingClassifier(max_iter=50).fit(few, labels)
    yield "gradient boosting", boosting, "sklearn", boosting.predict
    trees = xgboost.XGBClassifier(n_estimators=100, n_jobs=1).fit(few, labels)
    yield "xgboost", trees, "xgboost", trees.predict
    one = onnxruntime.SessionOptions()
    one.intra_op_num_threads = one.inter_op_num_threads = 1
    for width in (128, 512):
        graph = to_onnx(MLPRegressor(hidden_layer_sizes=(width, width), max_iter=2).fit(few, labels), few[:1])
        session = onnxruntime.InferenceSession(graph.SerializeToString(), one)
        yield f"onnx, layers of {width}", graph, "onnx", lambda rows, run=session.run: run(None, {"X": rows})[0]


def compared(model: Path, call: Callable[[Any], Any], data: np.ndarray[Any, Any], rounds: int) -> dict[str, Any]:
    from lakemill import ModelStep, Pipeline
    from lakemill.in_process.inference import Inference
    from lakemill.pipelines.planning import make_plan

    pipeline = Pipeline((ModelStep(str(model)),))
    resolved = pipeline.resolve()
    table = pa.table({resolved.models[0].inputs[0].name: pa.FixedSizeListArray.from_arrays(data.ravel(), FEATURES)})
    rows = pipeline.plan(table).batch["rows"]
    batches = [data[start : start + rows] for start in range(0, len(data), rows)]
    inference = Inference(lambda kinds: replace(make_plan(resolved, kinds, readable="all"), threads=1))
    ways: dict[str, Callable[[], Any]] = {
        "bare": lambda: [call(batch) for batch in batches],
        "lakemill": lambda: inference.run(table, dataset="out"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(FIRST + rounds):
        for way in random.sample(list(ways), 2):
            started = time.process_time()
            ways[way]()
            if number >= FIRST:
                seconds[way].append(time.process_time() - started)
    ratios = [ours / bare - 1 for ours, bare in zip(seconds["lakemill"], seconds["bare"], strict=True)]
    bare, ours = (statistics.median(seconds[way]) * 1000 / len(batches) for way in ("bare", "lakemill"))
    return {
        "more": round(statistics.median(ratios), 3),
        "quartiles": [round(ratio, 3) for ratio in statistics.quantiles(ratios, n=4)[::2]],
        "calls": len(batches),
        "milliseconds_a_call": round(bare, 2),
        "more_milliseconds_a_call": round(ours - bare, 3),
    }


if __name__ == "__main__":
    main()
