"""One, two and three models over the same photographs, in one pass, and a cascade of two of them.

    python benchmarks/traffic.py --json docs/benchmarks/traffic.json --plot docs/benchmarks/traffic.png

``pass`` is ``worker.predict_batches`` over JPEGs, with SqueezeNet as a model, or as a champion with one or two shadows;
``model alone`` is the network over the tensors that the image step makes. The overhead is what a further model costs
above the model alone. The cascades answer 70 % of the photographs with their first model: SqueezeNet before
ResNet-50, and a network of one convolution before SqueezeNet, where decoding is the larger part of the work. Rounds
take turns; the first warms up and does not count, and no more models take turns than a worker keeps, so none is loaded
within a round that counts. Intervals are the 95 % bootstrap's over rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper
from predict_data import write_large_network, write_network, write_photos
from results import panels, parser, publish

from lakemill import CascadeStep, ImageStep, ModelStep, Pipeline, ShadowStep
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.models.onnx_runtime import OnnxModel
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.tensors.spec import arrow_tensors
from lakemill_udfs.worker import predict_batches

IMAGE = ImageStep(
    resize_shorter=256,
    crop=(224, 224),
    resample="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    output="data_0",
)
EASY = 0.7  # of the photographs
RESAMPLES = 2000
Runs = Mapping[str, Callable[[], Any]]
Rounds = dict[str, np.ndarray[Any, Any]]
"""Seconds of each round by name, ``(rounds, 2)``: of the processor, and on the wall."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.photos, options.rounds)
    publish(result, ("lakemill", "onnxruntime", "pillow", "numpy"), options, draw)


def measure(folder: Path, photos: int, rounds: int) -> dict[str, Any]:
    """Return ratios with their intervals, and the medians of all runs."""
    table = _table(folder, photos)
    batch = np.stack(Pipeline((IMAGE,)).infer(table.to_pandas())["out.data_0"])
    seconds: Rounds = {}
    for runs in _runs(folder, table, batch):
        seconds |= _rounds(runs, rounds)
    return {
        "overhead_of_a_further_model": _ratio(seconds, _further, 0),
        "overhead_of_a_further_model_on_the_wall": _ratio(seconds, _further, 1),
        "cascade_to_large_alone": _ratio(seconds, _cascade, 0),
        "cascade_to_large_alone_on_the_wall": _ratio(seconds, _cascade, 1),
        "cascade_of_small_ones_to_its_second_alone_on_the_wall": _ratio(seconds, _small_cascade, 1),
        "processor_seconds": {name: round(statistics.median(one[:, 0]), 4) for name, one in seconds.items()},
        "wall_seconds": {name: round(statistics.median(one[:, 1]), 4) for name, one in seconds.items()},
        "photos": photos,
        "rounds": rounds,
    }


def _runs(folder: Path, table: pa.Table, batch: np.ndarray[Any, Any]) -> Sequence[Runs]:
    """Return runs that take turns with each other."""
    one, two, three = (_network(folder / f"network-{number}.onnx", number) for number in range(3))
    small, large = folder / "small.onnx", folder / "large.onnx"
    _write_small(small)
    write_large_network(large)

    def cascade(first: str, then: str) -> CascadeStep:
        return CascadeStep(first, then, f"out.confidence >= {_limit(Path(first), batch)!r}")

    further = {
        "model alone": _alone(one, batch),
        "pass, no model": _pass(table, [IMAGE]),
        "pass, 1 model": _pass(table, [IMAGE, ModelStep(one)]),
        "pass, 2 models": _pass(table, [IMAGE, ShadowStep(one, {"b": two})]),
        "pass, 3 models": _pass(table, [IMAGE, ShadowStep(one, {"b": two, "c": three})]),
    }
    cascades = {
        "pass, small model": _pass(table, [IMAGE, ModelStep(one)]),
        "cascade, small ones": _pass(table, [IMAGE, cascade(str(small), one)]),
        "pass, large model": _pass(table, [IMAGE, ModelStep(str(large))]),
        "cascade": _pass(table, [IMAGE, cascade(one, str(large))]),
    }
    return further, cascades


def _further(of: Mapping[str, float]) -> float:
    return (of["pass, 3 models"] - of["pass, 1 model"]) / (2 * of["model alone"]) - 1


def _cascade(of: Mapping[str, float]) -> float:
    return of["cascade"] / of["pass, large model"]


def _small_cascade(of: Mapping[str, float]) -> float:
    return of["cascade, small ones"] / of["pass, small model"]


def _ratio(seconds: Rounds, value: Callable[[Mapping[str, float]], float], kind: int) -> dict[str, float]:
    """Return a value of the medians over rounds, and its interval."""
    rounds, random = len(next(iter(seconds.values()))), np.random.default_rng(0)

    def of(some: Any) -> float:
        return value({name: float(np.median(one[some, kind])) for name, one in seconds.items()})

    drawn = [of(random.integers(0, rounds, rounds)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": round(of(slice(None)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def draw(result: Mapping[str, Any]) -> Any:
    """Draw what each further model costs, and what the cascade saves."""
    photos, wall = result["photos"], result["wall_seconds"]
    figure, (models, cascade) = panels(2, 5)
    for axes, names in (
        (models, ["pass, no model", "pass, 1 model", "pass, 2 models", "pass, 3 models"]),
        (cascade, ["pass, large model", "cascade"]),
    ):
        axes.barh(names, [1000 * wall[name] / photos for name in names], color="#d1603d", height=0.6)
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds a photograph, on the wall, one thread")
    overhead, ratio = result["overhead_of_a_further_model"], result["cascade_to_large_alone_on_the_wall"]
    models.set_title(f"A further model costs {overhead['value']:+.1%} above the model alone (SqueezeNet)", loc="left")
    cascade.set_title(f"SqueezeNet, then ResNet-50 for 30 %: {ratio['value']:.2f} of ResNet-50 alone", loc="left")
    return figure


def _rounds(runs: Runs, rounds: int) -> Rounds:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            if number:
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: np.array(one) for name, one in seconds.items()}


def _table(folder: Path, photos: int) -> pa.Table:
    write_photos(folder / "photos", photos)
    files = sorted((folder / "photos").glob("*.jpg"))
    return pa.table({"path": [file.name for file in files], "content": [file.read_bytes() for file in files]})


def _network(path: Path, seed: int) -> str:
    """Write SqueezeNet with weights of its own: equal files would be one model."""
    write_network(path)
    model = onnx.load(str(path))
    for tensor in model.graph.initializer[:1]:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((values * (1 + seed / 100)).astype(values.dtype), tensor.name))
    onnx.save(model, str(path))
    return str(path)


def _write_small(path: Path) -> None:
    """Write a network of one convolution, ``data_0 -> logits (n, 1000)``."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["data_0", "kernel"], ["features"], kernel_shape=[7, 7], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    values = {"kernel": (16, 3, 7, 7), "weights": (16, 1000)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data_0", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1000])],
        [numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def _limit(path: Path, batch: np.ndarray[Any, Any]) -> float:
    scores = OnnxModel(path, threads=1, device="cpu").predict({"data_0": batch})["logits"].max(axis=1)
    return float(np.quantile(scores, 1 - EASY))


def _alone(path: str, batch: np.ndarray[Any, Any]) -> Callable[[], Any]:
    model, rows = OnnxModel(Path(path), threads=1, device="cpu"), 8  # as many as a pass takes at a time

    def run() -> None:
        for start in range(0, len(batch), rows):
            model.predict({"data_0": batch[start : start + rows]})

    return run


def _pass(table: pa.Table, steps: Sequence[Step]) -> Callable[[], Any]:
    plan = make_plan(resolve(Pipeline(tuple(steps))), arrow_tensors(table.schema), passthrough=["path"], threads=1)
    return lambda: sum(part.num_rows for part in predict_batches(plan, table.to_batches()))


def _options() -> Any:
    made = parser(__doc__)
    made.add_argument("--photos", type=int, default=64)
    made.add_argument("--rounds", type=int, default=9)
    return made.parse_args()


if __name__ == "__main__":
    main()
