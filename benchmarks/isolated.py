"""A model in an environment of its own: what its process costs, beside the same model in this process and in Spark.

python -m benchmarks.isolated [--photos 200] [--rows 100000] [--rounds 7] [--with-spark] [--json FILE] [--plot FILE]

* ``over``: seconds of ``Pipeline.infer`` with ``env: isolated`` over those without, the median of rounds that have
  one of each: photographs through SqueezeNet, decoding included; the same images as ready tensors, which all go
  to the other process; rows of 20 numbers through a small network, which takes next to no time for them.
* ``first_seconds``: from nothing to the first result, the environment made by uv (or pip) included, and again with the
  environment that is there.
* ``rows_per_second``: the rows of 20 numbers from Delta to Delta in this process, which is warm, with ``--with-spark``
  beside ``mlflow.pyfunc.spark_udf(env_manager="uv")`` of the same model. Both need a package registry, and uv.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.predict_data import write_network, write_photos
from benchmarks.results import draw_rates, panels, parser, publish
from lakemill import ImageStep, ModelStep, Pipeline

FEATURES = 20
PHOTO = ImageStep(
    resize_shorter=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NCHW"
)


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--photos", type=int, default=200)
    options_of.add_argument("--rows", type=int, default=100_000)
    options_of.add_argument("--rounds", type=int, default=7)
    options_of.add_argument("--with-spark", action="store_true")
    options = options_of.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = scratch  # so that the environment is made, not found
        photos, small = save(folder)
        first = {"made": first_result(small), "there already": first_result(small)}
        print(first, file=sys.stderr, flush=True)
        result: dict[str, Any] = {"over": {}, "milliseconds": {}, "first_seconds": first}
        for name, (steps, data) in cases(folder, photos, small, options).items():
            over, milliseconds = compared(steps, data, options.rounds)
            result["over"][name], result["milliseconds"][name] = over, milliseconds
            print(name, over, milliseconds, file=sys.stderr, flush=True)
        result["rows"], result["photos"] = options.rows, options.photos
        result["rounds"] = rates(folder, small, options)
        result["rows_per_second"] = {name: round(statistics.median(all_)) for name, all_ in result["rounds"].items()}
    publish(result, ["lakemill", "mlflow", "onnxruntime", "pyspark"], options, draw)


def draw(result: dict[str, Any]) -> Any:
    figure, (one,) = panels(1, 2.2)
    rounds = result["rounds"]
    draw_rates(one, rates=rounds, notes={name: f"{result['rows_per_second'][name]:,}" for name in rounds})
    one.set_title("rows of 20 numbers a second, Delta to Delta", loc="left", fontsize=10)
    return figure


def save(folder: Path) -> tuple[Path, Path]:
    """Save SqueezeNet and a small network as MLflow models with requirements of their own."""
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import infer_signature

    from tests.lake import onnx_classifier

    write_network(folder / "squeezenet.onnx")
    onnx_classifier(folder / "small.onnx", inputs=FEATURES)
    shapes = {"squeezenet": (1, 3, 224, 224), "small": (1, FEATURES)}
    needs = [f"onnxruntime=={onnxruntime.__version__}", f"onnx=={onnx.__version__}", "pandas<3"]
    for name, shape in shapes.items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        given = {session.get_inputs()[0].name: np.zeros(shape, "float32")}
        (output,) = session.run(None, given)
        signature = infer_signature(given, {session.get_outputs()[0].name: output})
        graph = onnx.load(str(folder / f"{name}.onnx"))
        requirements = [*needs, f"mlflow=={mlflow.__version__}"]
        mlflow.onnx.save_model(graph, folder / name, signature=signature, pip_requirements=requirements)
    return folder / "squeezenet", folder / "small"


def first_result(model: Path) -> float:
    from lakemill_udfs.models.cache import CACHE

    CACHE.entries.clear()
    started = time.perf_counter()
    step = ModelStep(model, inputs={"pixels": "x"}, env="isolated")
    Pipeline((step,)).infer({"x": np.zeros((1, FEATURES), "float32")})
    return round(time.perf_counter() - started, 2)


def cases(folder: Path, photos: Path, small: Path, options: argparse.Namespace) -> dict[str, tuple[Any, pa.Table]]:
    """Return steps, the model's last, and data."""
    write_photos(folder / "jpegs", options.photos)
    encoded = [path.read_bytes() for path in sorted((folder / "jpegs").glob("*.jpg"))]
    image = replace(PHOTO, column="content", output="data_0")
    pixels = np.random.default_rng(0).random((options.photos, 3, 224, 224), dtype="float32")
    rows = np.random.default_rng(0).random((options.rows, FEATURES), dtype="float32")
    network = ModelStep(photos)
    return {
        "photographs": ((image, network), pa.table({"content": pa.array(encoded, pa.binary())})),
        "tensors": ((network,), pa.table({"data_0": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)})),
        "rows": ((ModelStep(small),), pa.table({"pixels": pa.FixedShapeTensorArray.from_numpy_ndarray(rows)})),
    }


def compared(steps: tuple[Any, ...], data: pa.Table, rounds: int) -> tuple[float, dict[str, float]]:
    """Return what the other process costs, and the milliseconds of both ways."""
    here, apart = Pipeline(steps), Pipeline((*steps[:-1], replace(steps[-1], env="isolated")))
    calls: dict[str, Callable[[], Any]] = {
        "in-process": lambda: here.infer(data, dataset="out"),
        "isolated": lambda: apart.infer(data, dataset="out"),
    }
    (expected,), (found,) = (call().columns for call in calls.values())
    np.testing.assert_allclose(np.array(found.to_pylist()), np.array(expected.to_pylist()), rtol=1e-4)
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(rounds):
        for way, call in random.sample(list(calls.items()), 2):
            started = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - started)
    ratios = [apart_ / here_ for here_, apart_ in zip(seconds["in-process"], seconds["isolated"], strict=True)]
    return round(statistics.median(ratios) - 1, 3), {
        way: round(statistics.median(all_) * 1000, 1) for way, all_ in seconds.items()
    }


def rates(folder: Path, small: Path, options: argparse.Namespace) -> dict[str, list[int]]:
    from deltalake import write_deltalake

    rows = np.random.default_rng(0).random((options.rows, FEATURES), dtype="float32")
    cells = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), FEATURES).cast(pa.list_(pa.float32()))
    write_deltalake(folder / "source", pa.table({"id": pa.array(range(len(rows))), "pixels": cells}))
    systems = {"lakemill local, isolated": job}
    if options.with_spark:
        systems["spark_udf, uv"] = spark_udf
    found: dict[str, list[int]] = {name: [] for name in systems}
    for turn in range(3):  # the first warms sessions, environments and models
        for name, run in systems.items():
            started = time.perf_counter()
            run(folder, small, folder / f"{name.replace(', ', '_').replace(' ', '_')}_{turn}")
            print(name, round(time.perf_counter() - started, 2), file=sys.stderr, flush=True)
            if turn:
                found[name].append(round(options.rows / (time.perf_counter() - started)))
    return found


def job(folder: Path, model: Path, output: Path) -> None:
    from lakemill import PredictConfig, predict_table

    config = PredictConfig.load(
        name="isolated",
        source={"table": f"{folder}/source", "key": ["id"]},
        pipeline={"steps": [{"model": {"uri": str(model), "env": "isolated"}}]},
        output={"table": str(output)},
        engine={"name": "local"},
    )
    assert predict_table(config).rows_error == 0


def spark_udf(folder: Path, model: Path, output: Path) -> None:
    import mlflow.pyfunc

    from lakemill import get_session

    spark = get_session("benchmark")
    kind = "logits array<double>"
    score = mlflow.pyfunc.spark_udf(spark, str(model), result_type=kind, env_manager="uv")
    rows = spark.read.format("delta").load(f"{folder}/source")
    rows.select("id", score("pixels").alias("out")).write.format("delta").save(str(output))


if __name__ == "__main__":
    main()
