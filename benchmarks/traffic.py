"""One, two and three models over the same photographs, in one pass: what each further model costs beside itself.

    python benchmarks/traffic.py --photos 96 --json docs/benchmarks/traffic.json

``pass`` is ``worker.predict_batches`` over JPEGs, with SqueezeNet as a model, or as a champion with one or two shadows;
``model alone`` is the network over the tensors that the image step makes. The overhead is what a further model costs
above the model alone. ``cascade`` has a network of a tenth of the work first, which is sure of 70 % of the photographs.
Processor seconds of one thread, so that other work on the machine counts little; wall seconds are given too. Rounds
take turns; the first warms up and does not count.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper
from predict_data import write_network, write_photos
from results import parser, publish

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
Seconds = tuple[float, float]
"""Of the processor, and on the wall."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.photos, options.rounds)
    publish(result, ("lakemill", "onnxruntime", "pillow", "numpy"), options)


def measure(folder: Path, photos: int, rounds: int) -> dict[str, Any]:
    """Return the medians of all runs, and what follows from them."""
    table = _table(folder, photos)
    networks = [_network(folder / f"network-{number}.onnx", number) for number in range(3)]
    _small(folder / "small.onnx")
    batch = np.stack(Pipeline((IMAGE,)).infer(table.to_pandas())["out.data_0"])
    limit = _limit(folder / "small.onnx", batch)
    runs = {
        "model alone": _alone(networks[0], batch),
        "pass, no model": _pass(table, [IMAGE]),
        "pass, 1 model": _pass(table, [IMAGE, ModelStep(networks[0])]),
        "pass, 2 models": _pass(table, [IMAGE, ShadowStep(networks[0], {"b": networks[1]})]),
        "pass, 3 models": _pass(table, [IMAGE, ShadowStep(networks[0], {"b": networks[1], "c": networks[2]})]),
        "cascade": _pass(
            table, [IMAGE, CascadeStep(str(folder / "small.onnx"), networks[0], f"out.confidence >= {limit!r}")]
        ),
    }
    seconds = _rounds(runs, rounds)
    cpu, wall = (
        {name: round(statistics.median(s[at] for s in one), 4) for name, one in seconds.items()} for at in (0, 1)
    )
    model = cpu["model alone"]
    return {
        "overhead_of_a_further_model": round((cpu["pass, 3 models"] - cpu["pass, 1 model"]) / (2 * model) - 1, 4),
        "overhead_of_second_model": round((cpu["pass, 2 models"] - cpu["pass, 1 model"]) / model - 1, 4),
        "overhead_of_third_model": round((cpu["pass, 3 models"] - cpu["pass, 2 models"]) / model - 1, 4),
        "cascade_to_large_alone_with_decoding": round(cpu["cascade"] / cpu["pass, 1 model"], 4),
        "cascade_to_large_alone": round(
            (cpu["cascade"] - cpu["pass, no model"]) / (cpu["pass, 1 model"] - cpu["pass, no model"]), 4
        ),
        "processor_seconds": cpu,
        "wall_seconds": wall,
        "photos": photos,
        "rounds": rounds,
    }


def _rounds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Seconds]]:
    seconds: dict[str, list[Seconds]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            if number:
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return seconds


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


def _small(path: Path) -> None:
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
    made.add_argument("--photos", type=int, default=96)
    made.add_argument("--rounds", type=int, default=5)
    return made.parse_args()


if __name__ == "__main__":
    main()
