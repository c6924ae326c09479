"""What ``Pipeline.infer`` costs beside the model, by the form of its input: a large frame, a batch of images, one row.

    python benchmarks/input_forms.py --json docs/benchmarks/input_forms.json --plot docs/benchmarks/input_forms.png

The frame is the uint16 image of (2052, 2456) with four outputs of its size; its model returns arrays made before, so
that all the time is Lakemill's. Forms take turns, another one first in each round; the first rounds warm up and do not
count. ``input`` is reading the tensor (``metadata.elapsed``), ``total`` the whole call, results formatted. For nested
Python lists, ``numpy`` is ``np.array(cell, dtype=...)`` over the same lists. One small row is measured with calls of
one form in a row, ``total`` and ``over_model``, and with the forms in turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from frame_model import HEIGHT, WIDTH
from linear_model import write_linear_model
from numpy.typing import NDArray
from results import panels, parser, publish

from lakemill import ModelStep, Pipeline, PythonStep, TensorSpec

PACKAGES = ("lakemill", "numpy", "pyarrow", "pandas", "onnxruntime")
FRAME = TensorSpec("image", "uint16", (HEIGHT, WIDTH))
FEATURES = 29
IN_A_ROW = 20


def main() -> None:
    options = _options()
    result: dict[str, Any] = {
        "frame": measure(frame_forms(), _stainer(), options.frames),
        "images float32": measure(image_forms(np.float32), _first_value("float32"), options.batches),
        "images uint8": measure(image_forms(np.uint8), _first_value("uint8"), options.batches),
        "row": measure_rows(options.rows),
    }
    publish(result | {"unit": "milliseconds, median"}, PACKAGES, options, plot)


def _stainer() -> Pipeline:
    shape = [HEIGHT, WIDTH]
    outputs = {
        "image": {"dtype": "uint16", "shape": shape},
        "virtual_stain": {"dtype": "uint8", "shape": [*shape, 3]},
        "mask_overlay": {"dtype": "uint8", "shape": [*shape, 3]},
        "mask": {"dtype": "uint16", "shape": shape},
    }
    return Pipeline((PythonStep("frame_model:stain", outputs, {"image": "image"}),), inputs=(FRAME,))


def _first_value(dtype: str) -> Pipeline:
    step = PythonStep("frame_model:first_value", {"y": {"dtype": "float32"}}, {"pixels": "pixels"})
    return Pipeline((step,), inputs=(TensorSpec("pixels", dtype, (224, 224, 3)),))


def frame_forms() -> dict[str, Any]:
    """Return the frame in each form that a caller may have it."""
    frame = np.random.default_rng(0).integers(0, 2**16, (1, HEIGHT, WIDTH), dtype=np.uint16)
    dims = {"dim0": [HEIGHT], "dim1": [WIDTH]}
    flat = pa.ListArray.from_arrays([0, frame.size], frame.reshape(-1))
    return _forms("image", frame) | {"flattened + dims": pa.table({"image": flat} | dims)}


def image_forms(dtype: Any) -> dict[str, Any]:
    """Return 32 images of 224x224x3 in each form."""
    return _forms("pixels", np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3)).astype(dtype))


def _forms(name: str, batch: NDArray[Any]) -> dict[str, Any]:
    cells = list(batch)
    return {
        "BINARY": pa.table({name: pa.array([row.tobytes() for row in cells], pa.binary())}),
        "fixed-shape tensor": pa.table({name: pa.FixedShapeTensorArray.from_numpy_ndarray(batch)}),
        "Arrow nested lists": pa.table({name: _nested(batch)}),
        "pandas bytes": pd.DataFrame({name: [row.tobytes() for row in cells]}),
        "pandas numpy arrays": pd.DataFrame({name: cells}),
        "pandas nested lists": pd.DataFrame({name: batch.tolist()}),
    }


def _nested(batch: NDArray[Any]) -> pa.Array:
    values: pa.Array = pa.array(batch.reshape(-1))
    for axis in range(batch.ndim - 1, 0, -1):
        lists = int(np.prod(batch.shape[:axis]))
        values = pa.ListArray.from_arrays(np.arange(lists + 1, dtype=np.int32) * batch.shape[axis], values)
    return values


def measure(forms: Mapping[str, Any], pipeline: Pipeline, rounds: int) -> dict[str, dict[str, float]]:
    """Return for each form the median milliseconds of reading the input and of the whole call."""
    inputs: dict[str, list[float]] = {name: [] for name in forms}
    totals: dict[str, list[float]] = {name: [] for name in forms}
    floors: list[float] = []
    names = list(forms)
    dtype = pipeline.inputs[0].dtype
    for number in range(rounds + 2):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            started = time.perf_counter()
            result = pipeline.infer(forms[name], dataset=["*", "metadata.elapsed"])
            total = (time.perf_counter() - started) * 1e3
            elapsed = result["metadata.elapsed"][0]
            read = elapsed.as_py() if isinstance(elapsed, pa.Scalar) else elapsed
            if number >= 2:
                inputs[name].append(read[0] / 1e6)
                totals[name].append(total)
        column = forms["pandas nested lists"].iloc[:, 0]
        started = time.perf_counter()
        for cell in column:
            np.array(cell, dtype=dtype)
        if number >= 2:
            floors.append((time.perf_counter() - started) * 1e3)
    medians = {name: {"input": _median(inputs[name]), "total": _median(totals[name])} for name in names}
    medians["pandas nested lists"]["numpy"] = _median(floors)
    return medians


def measure_rows(rounds: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of a call with one small row, and how much of it is not the model's.

    Measured twice: calls of one form in a row, as a service makes them, and forms in turn, where each call finds the
    processor's caches full of another's.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = write_linear_model(Path(folder) / "linear.onnx", ("features", FEATURES), ("score", 1))
        pipeline = Pipeline((ModelStep(str(graph)),))
        row = np.random.default_rng(0).random((1, FEATURES), dtype=np.float32)
        forms = {
            "dict": {"features": row.tolist()},
            "dict of numpy arrays": {"features": row},
            "Arrow": pa.table({"features": _nested(row)}),
            "pandas": pd.DataFrame({"features": row.tolist()}),
        }
        pipeline.infer(forms["dict"])
        from lakemill_udfs.models.cache import CACHE

        model = next(reversed(CACHE.entries.values())).model
        calls: dict[str, Callable[[], Any]] = {"model": lambda: model.predict({"features": row})}
        calls |= {name: lambda data=data: pipeline.infer(data) for name, data in forms.items()}
        in_a_row = _call_times(calls, rounds // IN_A_ROW, IN_A_ROW)
        in_turn = _call_times(calls, rounds, 1)
    return {
        name: {
            "total": in_a_row[name],
            "over_model": round(in_a_row[name] - in_a_row["model"], 4),
            "in_turn_over_model": round(in_turn[name] - in_turn["model"], 4),
        }
        for name in calls
    }


def _call_times(calls: Mapping[str, Callable[[], Any]], rounds: int, in_a_row: int) -> dict[str, float]:
    """Return each call's median milliseconds; before the rounds that count, half as many that do not."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + rounds // 2):
        for name, call in calls.items():
            for _ in range(in_a_row):
                started = time.perf_counter()
                call()
                if number >= rounds // 2:
                    times[name].append((time.perf_counter() - started) * 1e3)
    return {name: _median(one) for name, one in times.items()}


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def plot(result: dict[str, Any]) -> Any:
    """Draw each form's call as a bar, on a scale of powers of ten, and the reading of its input within it."""
    titles = {
        "frame": "one frame (2052, 2456) uint16, four outputs of its size",
        "images float32": "32 images of 224x224x3 float32",
        "images uint8": "32 images of 224x224x3 uint8",
        "row": f"one row of {FEATURES} numbers, ONNX model",
    }
    figure, all_axes = panels(len(titles), 9)
    for axes, (work, title) in zip(all_axes, titles.items(), strict=True):
        names = sorted(result[work], key=lambda name, work=work: -result[work][name]["total"])
        for place, name in enumerate(names):
            one = result[work][name]
            axes.barh(place, one["total"], color="#9fb4c7", height=0.6)
            if "input" in one:
                axes.barh(place, one["input"], color="#d1603d", height=0.3)
            axes.annotate(
                f"{one['total']:.3g} ms", (one["total"], place), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_title(title, loc="left", fontsize=10)
    all_axes[-1].set_xlabel("milliseconds a call; grey: whole call, red: reading the input")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=30, help="rounds with the frame")
    options.add_argument("--batches", type=int, default=15, help="rounds with each batch of images")
    options.add_argument("--rows", type=int, default=2000, help="rounds with one row")
    return options.parse_args()


if __name__ == "__main__":
    main()
