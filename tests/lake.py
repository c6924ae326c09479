"""Small real tables and models that tests share."""

from __future__ import annotations

import datetime as dt
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from PIL import Image

from lakemill import LakemillError, PredictConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WHEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def png(seed: int, size: int = 8) -> bytes:
    """Return a grey PNG whose mean brightness grows with ``seed``."""
    pixels = np.full((size, size), (seed * 20) % 256, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image_rows(start: int, count: int, broken: Sequence[int] = ()) -> pa.Table:
    """Return rows of an images table; those in ``broken`` hold a truncated PNG."""
    numbers = range(start, start + count)
    contents = [png(number)[:40] if number in broken else png(number) for number in numbers]
    return pa.table(
        {
            "path": [f"img/{number:04d}.png" for number in numbers],
            "modification_time": pa.array([WHEN] * count, pa.timestamp("us", "UTC")),
            "label": [str(number % 3) for number in numbers],
            "number": pa.array(list(numbers), pa.int64()),
            "content": contents,
        }
    )


def add_images(
    table: Path | str, start: int, count: int, broken: Sequence[int] = (), properties: Mapping[str, str] | None = None
) -> None:
    """Append image rows to a Delta table, without Spark."""
    write_deltalake(str(table), image_rows(start, count, broken), mode="append", configuration=properties)


def write_images(spark: SparkSession, table: Path | str, start: int, count: int, broken: Sequence[int] = ()) -> None:
    """Append image rows to a Delta table."""
    spark.createDataFrame(image_rows(start, count, broken)).coalesce(1).write.format("delta").mode("append").save(
        str(table)
    )


def onnx_classifier(path: Path, *, inputs: int = 64, classes: int = 3, bias: float = 0.0, weights: float = 1.0) -> Path:
    """Write a linear ONNX classifier ``pixels (n, inputs) -> logits (n, classes)`` with fixed weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = weights * np.linspace(-1, 1, inputs * classes, dtype=np.float32).reshape(inputs, classes)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["pixels", "weights", "bias"], ["logits"])],
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [
            numpy_helper.from_array(kernel, "weights"),
            numpy_helper.from_array(np.full(classes, bias, np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


IMAGE_STEP = {"image": {"column": "content", "mode": "L", "size": [8, 8], "layout": "flat", "output": "pixels"}}
FORMAT_STEP = {"format": {"input": "logits", "softmax": True, "labels": ["a", "b", "c"]}}


def steps(model: Path | str) -> list[dict[str, object]]:
    """Return image, model and format steps for ``onnx_classifier``."""
    return [IMAGE_STEP, {"model": {"uri": str(model)}}, FORMAT_STEP]


def digits_job(lake: Path, *overrides: str, name: str = "digits", **values: Any) -> PredictConfig:
    """Return a job from ``<lake>/images`` through ``<lake>/model.onnx`` to ``<lake>/predictions``."""
    usual: dict[str, Any] = {
        "name": name,
        "source__table": f"{lake}/images",
        "source__columns": ["label"],
        "pipeline__steps": steps(lake / "model.onnx"),
        "output__table": f"{lake}/predictions",
    }
    return PredictConfig.load(None, overrides, **usual | values)


OWN_FUNCTIONS = Path(__file__).with_name("both") / "predict"
"""The folder of ``own_functions``, for ``sys.path``."""

FEED = {"delta.enableChangeDataFeed": "true"}


def add_rows(table: Path | str, rows: Mapping[str, Any], **options: Any) -> None:
    """Append rows to a Delta table that records its changes, without Spark."""
    write_deltalake(str(table), pa.table(dict(rows)), **{"mode": "append", "configuration": FEED, **options})


def numbers_job(lake: Path, *overrides: str, function: str = "twice", x: str = "x", **values: Any) -> PredictConfig:
    """Return a job from ``<lake>/numbers`` through a function of ``own_functions`` to ``<lake>/predictions``."""
    outputs = {name: {"dtype": "float64"} for name in (("y", "z") if "thrice" in function else ("y",))}
    usual: dict[str, Any] = {
        "name": "job",
        "source__table": f"{lake}/numbers",
        "source__key": ["id"],
        "pipeline__steps": [
            {"python": {"function": f"own_functions:{function}", "inputs": {"x": x}, "outputs": outputs}}
        ],
        "output__table": f"{lake}/predictions",
    }
    return PredictConfig.load(None, overrides, **usual | values)


def paths_of(lake: Path) -> list[str]:
    """Return the paths of ``<lake>/predictions``, read without Spark; one that is there twice is there twice."""
    return sorted(DeltaTable(f"{lake}/predictions").to_pyarrow_table(columns=["path"])["path"].to_pylist())


def at_once(*runs: Callable[[], object]) -> list[str]:
    """Run all at the same time and return the codes of those that fail."""
    codes: list[str] = []
    start = threading.Barrier(len(runs))

    def one(run: Callable[[], object]) -> None:
        start.wait()
        run()

    with ThreadPoolExecutor(len(runs)) as pool:
        for future in [pool.submit(one, run) for run in runs]:
            try:
                future.result()
            except LakemillError as error:
                codes.append(error.code)
    return codes


def photo_classifier(path: Path, *, classes: int) -> Path:
    """Write an ONNX classifier ``image (n, 3, 224, 224) -> logits (n, classes)`` of the mean of each colour."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.linspace(-1, 1, 3 * classes, dtype=np.float32).reshape(3, classes)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        ],
        "photos",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def factor_model(path: Path, factor: float, output: str = "demand") -> Path:
    """Write a model ``sales -> sales * factor``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["sales", "factor"], [output])],
        "factor",
        [helper.make_tensor_value_info("sales", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([factor], np.float32), "factor")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def big_factor_model(path: Path) -> None:
    """Write a model of 600 KiB of the same inputs and outputs."""
    import onnx
    from onnx import numpy_helper

    factor_model(path, 1)
    model = onnx.load(str(path))
    unused = np.random.default_rng(len(path.name)).random(150_000, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(unused, f"unused{path.stem}"))
    onnx.save(model, str(path))
