"""224x224x3 tensors on Spark: BINARY through ``Pipeline.transform``, array<float> through ``predict_batch_udf``.

    python benchmarks/input_forms_spark.py --json docs/benchmarks/input_forms_spark.json \
        --plot docs/benchmarks/input_forms_spark.png

The same pixels are in three Delta tables: as float32 bytes and as uint8 bytes, both laid out as Lakemill does it for
blobs (uncompressed, no dictionary, no statistics, row groups of 16 MiB: unpacking 600 KB values, or keeping the
smallest and the largest of each page, takes longer than everything else), and as array<float>, which is what
``predict_batch_udf`` takes, in the writer's default layout. The model is trivial, the largest value of each tensor, so
what is measured is the way to the model and back. Lakemill's sessions have the settings that ``Pipeline.plan`` asks
for, which are those that ``lakemill predict`` makes for itself. ``predict_batch_udf`` runs twice: with Spark's
settings, as it comes, and tuned by what Lakemill knows, which is small batches of the reader and as many rows at a time
as a model batch has. The first round warms up and does not count; each later one begins with another way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties, write_deltalake
from results import draw_rates, panels, parser, publish
from trivial_model import SHAPE, largest_of_batch

from lakemill import Pipeline, PythonStep, get_session
from lakemill.engines.image_layout import ROW_GROUP_BYTES
from lakemill.engines.spark.blob_tables import BLOB_READ_SETTINGS
from lakemill.engines.spark.session import session_with

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HERE = Path(__file__).parent
FILES = 8
BATCH_ROWS = 16
PEER, TUNED_PEER = "predict_batch_udf, array<float>", "predict_batch_udf, array<float>, tuned"
PEER_SETTINGS = BLOB_READ_SETTINGS | {
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
}
PLAIN = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
PACKAGES = ("lakemill", "pyspark", "delta-spark", "deltalake", "numpy", "pyarrow")


def main() -> None:
    options = _options()
    # Spark's Python workers import the model by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    base = get_session("benchmark", {"spark.master": f"local[{options.cores}]", "spark.driver.memory": "6g"})
    with tempfile.TemporaryDirectory() as scratch:
        write_tables(Path(scratch), options.rows)
        ways: dict[str, Callable[[], DataFrame]] = {
            PEER: with_batch_udf(base, Path(scratch)),
            TUNED_PEER: with_batch_udf(session_with(base, PEER_SETTINGS), Path(scratch)),
            "lakemill, float32 BINARY": with_lakemill(base, Path(scratch), "float32"),
            "lakemill, uint8 BINARY": with_lakemill(base, Path(scratch), "uint8"),
        }
        result = measure(ways, options.rows, options.repeats)
    result |= {
        "work": {"rows": options.rows, "shape": SHAPE, "cores": options.cores},
    }
    publish(result, PACKAGES, options, plot)


def write_tables(folder: Path, rows: int) -> None:
    """Write the same pixels three times, in ``FILES`` files each."""
    random = np.random.default_rng(0)
    per_file = -(-rows // FILES)
    for start in range(0, rows, per_file):
        pixels = random.integers(0, 256, (min(per_file, rows - start), *SHAPE), dtype=np.uint8)
        pixels[:, 0, 0, 0] = np.arange(start, start + len(pixels)) % 256
        scaled = pixels.astype(np.float32)
        flat = pa.array(scaled.reshape(-1))
        offsets = np.arange(len(pixels) + 1, dtype=np.int32) * int(np.prod(SHAPE))
        for name, column in {
            "float32": pa.array([row.tobytes() for row in scaled]),
            "uint8": pa.array([row.tobytes() for row in pixels]),
            "array": pa.ListArray.from_arrays(offsets, flat),
        }.items():
            layout = None if name == "array" else _blob_layout(column.nbytes // len(column))
            write_deltalake(str(folder / name), pa.table({"x": column}), mode="append", writer_properties=layout)


def _blob_layout(row_bytes: int) -> WriterProperties:
    return WriterProperties(
        compression="UNCOMPRESSED",
        default_column_properties=PLAIN,
        max_row_group_size=max(1, ROW_GROUP_BYTES // row_bytes),
    )


def with_lakemill(base: SparkSession, folder: Path, dtype: str) -> Callable[[], DataFrame]:
    metadata = {"lakemill.dtype": dtype, "lakemill.shape": json.dumps(SHAPE)}
    pipeline = Pipeline((PythonStep("trivial_model:largest", {"y": {"dtype": dtype}}, {"x": "x"}),))

    def tensors(spark: SparkSession) -> DataFrame:
        return spark.read.format("delta").load(str(folder / dtype)).withMetadata("x", metadata)

    settings = pipeline.plan(tensors(base)).settings
    spark = session_with(base, {setting["name"]: setting["value"] for setting in settings})
    return lambda: pipeline.transform(tensors(spark), columns=[]).selectExpr("double(out.y) AS y")


def with_batch_udf(spark: SparkSession, folder: Path) -> Callable[[], DataFrame]:
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import FloatType

    predict = predict_batch_udf(
        largest_of_batch, return_type=FloatType(), batch_size=BATCH_ROWS, input_tensor_shapes=[list(SHAPE)]
    )
    rows = spark.read.format("delta").load(str(folder / "array"))
    return lambda: rows.select(predict("x").cast("double").alias("y"))


def measure(ways: dict[str, Callable[[], DataFrame]], rows: int, repeats: int) -> dict[str, Any]:
    """Run all ways in turn, ``repeats`` times after a warm-up; the ratios are the medians of the rounds' ratios."""
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    sums: set[tuple[Any, ...]] = set()
    for number in range(repeats + 1):
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            started = time.perf_counter()
            sums.add(tuple(ways[name]().selectExpr("count(y)", "sum(y)").collect()[0]))
            elapsed = time.perf_counter() - started
            print(f"round {number}: {name} {elapsed:.2f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            if number:
                seconds[name].append(elapsed)
    assert len(sums) == 1, "the ways give different results"
    return {
        "ratio_to_predict_batch_udf": _ratios(seconds, PEER),
        "ratio_to_predict_batch_udf_tuned": _ratios(seconds, TUNED_PEER),
        "rows_per_second": {name: [round(rows / run, 1) for run in runs] for name, runs in seconds.items()},
    }


def _ratios(seconds: dict[str, list[float]], peer: str) -> dict[str, float]:
    return {
        name: round(statistics.median(theirs / own for theirs, own in zip(seconds[peer], runs, strict=True)), 2)
        for name, runs in seconds.items()
    }


def plot(result: dict[str, Any]) -> Any:
    """Draw each way's rate and its ratio to ``predict_batch_udf``."""
    rates, work = result["rows_per_second"], result["work"]
    figure, (axes,) = panels(1, 0.6 * len(rates) + 1.4)
    draw_rates(axes, rates, {name: f"{ratio:.1f}" for name, ratio in result["ratio_to_predict_batch_udf"].items()})
    axes.set_xlabel("rows per second; bar: median, dots: rounds, number: ratio to predict_batch_udf")
    axes.set_title(f"{work['rows']:,} tensors of 224x224x3, {work['cores']} cores", loc="left", fontsize=10)
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=3200)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--cores", type=int, default=os.cpu_count())
    return options.parse_args()


if __name__ == "__main__":
    main()
