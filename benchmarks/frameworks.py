"""The frameworks: what Lakemill adds to a framework's own call, how long models load, and Delta to Delta.

python -m benchmarks.frameworks [--rows 1000000] [--rounds 2] [--only NAME ...] [--systems NAME ...] [--json FILE]
    [--plot FILE]

* ``overhead``: seconds of ``Pipeline.infer`` over the framework's own call, for 50,000 rows that are a ready array. The
  framework has the same contiguous ``float32`` rows, all processors, and a call before that is not counted; it is
  called for all rows at once and for batches of as many rows as Lakemill's plan has, in turn with Lakemill. The faster
  of its two ways counts.
* ``load_seconds``: a fresh interpreter from nothing to the first result, on the model's own runtime and on pyfunc.
* ``rows_per_second``: from Delta to Delta in this process, which is warm: Lakemill on the local engine (on its own
  runtime and on pyfunc) and on Spark, and ``mlflow.pyfunc.spark_udf`` of the same model in the same session. The
  systems take turns; the first turn is not counted; the number is the median of the others.

PyTorch is measured where it is installed. With ``--only``, the others in the file keep their figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.results import draw_rates, panels, parser, publish

FEATURES = 20
REPEATS = 60
BATCH = 50_000
SYSTEMS = ("lakemill local", "lakemill local, pyfunc", "lakemill spark", "spark_udf")

FIRST_RESULT = f"""
import sys
import numpy as np
from lakemill import ModelStep, Pipeline
step = ModelStep(sys.argv[1], runtime=sys.argv[2])
Pipeline((step,)).infer({{sys.argv[3]: np.zeros((1, {FEATURES}), "float32")}})
"""


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--rows", type=int, default=1_000_000)
    options_of.add_argument("--rounds", type=int, default=2)
    options_of.add_argument("--only", nargs="*", default=[])
    options_of.add_argument("--systems", nargs="*", default=SYSTEMS, choices=SYSTEMS)
    options = options_of.parse_args()
    is_part = options.only and options.json and options.json.exists()
    earlier = json.loads(options.json.read_text())["frameworks"] if is_part else {}
    result: dict[str, Any] = {"rows": options.rows, "frameworks": earlier}
    with tempfile.TemporaryDirectory() as scratch:
        data = np.random.default_rng(0).random((options.rows, FEATURES), dtype="float32")
        for name, (model, flavor, call) in models(data[:20_000]).items():
            if options.only and name not in options.only:
                continue
            folder = Path(scratch) / name.replace(" ", "_")
            save(model, flavor, folder / "model", data, call)
            result["frameworks"][name] = measured(folder, flavor, call, data, options)
            print(name, result["frameworks"][name], file=sys.stderr, flush=True)
    publish(result, ["lakemill", "scikit-learn", "xgboost-cpu", "lightgbm", "mlflow", "pyspark"], options, draw)


def draw(result: dict[str, Any]) -> Any:
    figure, axes = panels(len(result["frameworks"]), 1.7 * len(result["frameworks"]))
    for one, (name, found) in zip(axes, result["frameworks"].items(), strict=True):
        rates = found["rounds"]
        draw_rates(one, rates, {system: f"{found['rows_per_second'][system]:,}" for system in rates})
        one.set_title(f"{name}: rows a second, Delta to Delta", loc="left", fontsize=10)
    return figure


def models(data: np.ndarray[Any, Any]) -> dict[str, tuple[Any, str, Callable[[Any], Any]]]:
    """Return models, each with MLflow's flavor and the framework's own call."""
    import lightgbm
    import onnxruntime
    import xgboost
    from skl2onnx import to_onnx
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPRegressor

    labels = (data[:, 0] + data[:, 1] > 1).astype(int)
    linear = LogisticRegression().fit(data, labels)
    boosting = HistGradientBoostingClassifier(max_iter=50).fit(data, labels)
    trees = xgboost.XGBClassifier(n_estimators=100).fit(data, labels)
    leaves = lightgbm.LGBMRegressor(n_estimators=100, verbose=-1).fit(data, labels)
    graph = to_onnx(MLPRegressor(hidden_layer_sizes=(128, 128), max_iter=3).fit(data, labels), data[:1])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    found: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
        "logistic regression": (linear, "sklearn", linear.predict),
        "gradient boosting": (boosting, "sklearn", boosting.predict),
        "xgboost": (trees, "xgboost", trees.predict),
        "lightgbm": (leaves, "lightgbm", leaves.predict),
        "onnx": (graph, "onnx", lambda rows: session.run(None, {"X": rows})[0]),
    }
    if importlib.util.find_spec("torch"):
        found["torch"] = _torch()
    return found


def _torch() -> tuple[Any, str, Callable[[Any], Any]]:
    import torch

    layers = torch.nn.Linear(FEATURES, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU()
    network = torch.nn.Sequential(*layers, torch.nn.Linear(256, 1)).eval()

    def call(rows: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(rows)).numpy()

    return network, "torch", call


def save(model: Any, flavor: str, folder: Path, data: np.ndarray[Any, Any], call: Callable[[Any], Any]) -> None:
    """Save an MLflow model with a signature."""
    from mlflow.models import infer_signature

    modules = {"torch": "pytorch"}
    forms = {"sklearn": {"serialization_format": "cloudpickle"}, "torch": {"serialization_format": "pickle"}}
    few: Any = {"X": data[:5]} if flavor == "onnx" else data[:5]  # a graph's input has a name
    signature = infer_signature(few, call(data[:5]))
    module = importlib.import_module(f"mlflow.{modules.get(flavor, flavor)}")
    module.save_model(model, folder, signature=signature, pip_requirements=["mlflow"], **forms.get(flavor, {}))


def measured(
    folder: Path, flavor: str, direct: Callable[[Any], Any], data: np.ndarray[Any, Any], options: argparse.Namespace
) -> dict[str, Any]:
    from lakemill import ModelStep, Pipeline

    pipeline = Pipeline((ModelStep(str(folder / "model")),))
    name = pipeline.resolve().models[0].inputs[0].name
    runtimes = list(dict.fromkeys((pipeline.resolve().models[0].flavor, "pyfunc")))
    overhead = over_bare(pipeline, name, direct, data[:BATCH])
    found: dict[str, list[int]] = {system: [] for system in options.systems}
    source = written(folder, name, data)
    for turn in range(options.rounds + 1):  # the first warms Spark's session, its workers and the models
        for system, rates in found.items():
            try:
                seconds = run(system, folder, source, name, turn)
            except Exception as error:  # of MLflow's or Spark's own: this system cannot run this model
                print(f"{system} fails: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
                continue
            if turn:
                rates.append(round(len(data) / seconds))
    return {
        **overhead,
        "load_seconds": {runtime: first_result(folder, runtime, name) for runtime in runtimes},
        "rows_per_second": {system: round(statistics.median(rates)) for system, rates in found.items() if rates},
        "rounds": {system: rates for system, rates in found.items() if rates},
    }


def over_bare(pipeline: Any, name: str, direct: Callable[[Any], Any], rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return what ``infer`` takes over the framework's own call: the median of rounds that have one of each."""
    table = pa.table({name: pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), FEATURES)})
    size = pipeline.plan(table).batch["rows"]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    (result,) = pipeline.infer({name: rows}, dataset="out").values()
    np.testing.assert_allclose(np.ravel(result), np.ravel(direct(rows)), rtol=1e-5)
    calls: dict[str, Callable[[], Any]] = {
        "at once": lambda: direct(rows),
        "in batches": lambda: [direct(batch) for batch in batches],
        "lakemill": lambda: pipeline.infer(table, dataset="out"),
    }
    if len(batches) == 1:
        del calls["in batches"]
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(REPEATS):
        for way, call in random.sample(list(calls.items()), len(calls)):  # threads of the one before may spin on
            started = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - started)
    typical = {way: statistics.median(each) for way, each in seconds.items()}
    bare = min(typical.keys() - {"lakemill"}, key=lambda way: typical[way])
    ratios = [ours / its for ours, its in zip(seconds["lakemill"], seconds[bare], strict=True)]
    return {
        "overhead": round(statistics.median(ratios) - 1, 3),
        "milliseconds": {way: round(each * 1000, 2) for way, each in typical.items()},
        "batch_rows": size,
    }


def written(folder: Path, name: str, data: np.ndarray[Any, Any]) -> Path:
    from deltalake import write_deltalake

    cells = pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), FEATURES).cast(pa.list_(pa.float32()))
    write_deltalake(folder / "rows", pa.table({"id": pa.array(range(len(data))), name: cells}))
    return folder / "rows"


def run(system: str, folder: Path, source: Path, name: str, turn: int) -> float:
    """Return the seconds from Delta to Delta."""
    output = str(folder / f"{system.replace(' ', '_').replace(',', '')}_{turn}")
    started = time.perf_counter()
    if system == "spark_udf":
        spark_udf(folder, source, name, output, "array<double>" if "onnx" in folder.name else "double")
    else:
        job(folder, source, output, system)
    return time.perf_counter() - started


def spark_udf(folder: Path, source: Path, name: str, output: str, kind: str) -> None:
    import mlflow.pyfunc

    from lakemill import get_session

    spark = get_session("benchmark")
    score = mlflow.pyfunc.spark_udf(spark, str(folder / "model"), result_type=kind, env_manager="local")
    rows = spark.read.format("delta").load(str(source))
    rows.select("id", score(name).alias("out")).write.format("delta").save(output)


def job(folder: Path, source: Path, output: str, system: str) -> None:
    from lakemill import PredictConfig, get_session, predict_table

    engine = "spark" if "spark" in system else "local"
    runtime = {"runtime": "pyfunc"} if "pyfunc" in system else {}
    config = PredictConfig.model_validate(
        {
            "name": "frameworks",
            "source": {"table": str(source), "key": ["id"]},
            "pipeline": {"steps": [{"model": {"uri": str(folder / "model"), **runtime}}]},
            "output": {"table": output},
            "engine": {"name": engine},
        }
    )
    assert predict_table(config, get_session("benchmark") if engine == "spark" else None).rows_error == 0


def first_result(folder: Path, runtime: str, name: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_RESULT, str(folder / "model"), runtime, name], check=True)
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
