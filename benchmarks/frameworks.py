"""The light frameworks: what Lakemill adds to the framework's own call, how long models load, and Delta to Delta.

python -m benchmarks.frameworks [--rows 200000] [--json FILE]

* ``overhead``: seconds of ``Pipeline.infer`` over the framework called on the ready array, for one batch.
* ``load_seconds``: a fresh interpreter from nothing to the first result, on the model's own runtime and on pyfunc.
* ``rows_per_second``: a whole job on the local engine, commit included, on either runtime.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.results import parser, publish

FEATURES = 20
REPEATS = 7

FIRST_RESULT = f"""
import sys
import numpy as np
from lakemill import ModelStep, Pipeline
step = ModelStep(sys.argv[1], runtime=sys.argv[2])
Pipeline((step,)).infer({{"inputs": np.zeros((1, {FEATURES}))}})
"""


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--rows", type=int, default=200_000)
    options = options_of.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = np.random.default_rng(0).random((options.rows, FEATURES))
        for name, (model, flavor, method) in models(data[:20_000]).items():
            folder = Path(scratch) / name
            direct = save(model, flavor, folder / "model", data, method)
            result[name] = measured(folder, flavor, direct, data)
            print(name, result[name], flush=True)
    publish(result, ["lakemill", "scikit-learn", "xgboost-cpu", "mlflow"], options)


def models(data: np.ndarray[Any, Any]) -> dict[str, tuple[Any, str, str]]:
    """Return models, each with MLflow's flavor and the method that is called."""
    import xgboost
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    labels = (data[:, 0] + data[:, 1] > 1).astype(int)
    return {
        "logistic regression": (LogisticRegression().fit(data, labels), "sklearn", "predict"),
        "gradient boosting": (HistGradientBoostingClassifier(max_iter=50).fit(data, labels), "sklearn", "predict"),
        "xgboost": (xgboost.XGBClassifier(n_estimators=100).fit(data, labels), "xgboost", "predict"),
    }


def save(
    model: Any, flavor: str, folder: Path, data: np.ndarray[Any, Any], method: str
) -> Callable[[np.ndarray[Any, Any]], Any]:
    """Save an MLflow model with a signature; return the framework's own call."""
    import mlflow.sklearn
    import mlflow.xgboost
    from mlflow.models import infer_signature

    call: Callable[[np.ndarray[Any, Any]], Any] = getattr(model, method)
    signature = infer_signature(data[:5], call(data[:5]))
    modules = {"sklearn": mlflow.sklearn, "xgboost": mlflow.xgboost}
    form = {"serialization_format": "cloudpickle"} if flavor == "sklearn" else {}
    modules[flavor].save_model(model, folder, signature=signature, pip_requirements=["mlflow"], **form)
    return call


def measured(
    folder: Path, flavor: str, direct: Callable[[np.ndarray[Any, Any]], Any], data: np.ndarray[Any, Any]
) -> dict[str, Any]:
    from lakemill import ModelStep, Pipeline

    pipeline = Pipeline((ModelStep(str(folder / "model")),))
    batch = data[:50_000]
    assert np.array_equal(pipeline.infer({"inputs": batch}, dataset="out")["out.output"], direct(batch))
    bare = best(lambda: direct(batch))
    table = pa.table({"inputs": pa.FixedSizeListArray.from_arrays(pa.array(batch.ravel()), FEATURES)})
    ours = best(lambda: pipeline.infer(table, dataset="out"))
    return {
        "overhead": round(ours / bare - 1, 3),
        "bare_milliseconds": round(bare * 1000, 1),
        "load_seconds": {kind: first_result(folder, kind) for kind in (flavor, "pyfunc")},
        "rows_per_second": {kind: job(folder, kind, data) for kind in (flavor, "pyfunc")},
    }


def best(call: Callable[[], Any]) -> float:
    """Return the least seconds of several calls."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def first_result(folder: Path, runtime: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_RESULT, str(folder / "model"), runtime], check=True)
    return round(time.perf_counter() - started, 2)


def job(folder: Path, runtime: str, data: np.ndarray[Any, Any]) -> int:
    """Return how many rows a second a whole job scores."""
    from deltalake import write_deltalake

    from lakemill import PredictConfig, predict_table

    source = folder / "rows"
    if not source.exists():
        inputs = pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), FEATURES).cast(pa.list_(pa.float64()))
        write_deltalake(source, pa.table({"id": pa.array(range(len(data))), "inputs": inputs}))
    config = PredictConfig.model_validate(
        {
            "name": f"by-{runtime}",
            "source": {"table": str(source), "key": ["id"]},
            "pipeline": {"steps": [{"model": {"uri": str(folder / "model"), "runtime": runtime}}]},
            "output": {"table": str(folder / f"by_{runtime}")},
            "engine": {"name": "local"},
        }
    )
    started = time.perf_counter()
    result = predict_table(config)
    assert result.rows_error == 0
    return round(result.rows / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
