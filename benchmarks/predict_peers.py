"""The systems that the predict benchmark compares: each scores a Delta table of images into a new Delta table."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import predict_plain
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig, get_session, predict_table
from lakemill.engines.spark.session import session_with
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.steps.declared import ImageStep

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OUT = "label long, probability float, top_labels array<long>, top_probabilities array<float>"
PHOTO: dict[str, Any] = {
    "column": "content",
    "resize_shorter": predict_plain.SHORTER,
    "crop": (predict_plain.SIZE, predict_plain.SIZE),
    "resample": "bicubic",
    "mean": tuple(predict_plain.MEAN.tolist()),
    "std": tuple(predict_plain.STD.tolist()),
    "layout": "NCHW",
    "dtype": "float32",
    "output": "data_0",
}
Score = Callable[[str, Sequence[bytes]], dict[str, list[Any]]]


@dataclass(frozen=True)
class Work:
    """What is scored, on how many cores.

    Args:
        folder: Holds ``images`` (a Delta table), ``network.onnx`` and ``pyfunc`` (the MLflow model of it).
        cores: Spark tasks at a time.
        pool: As many processes, for the loop.
    """

    folder: Path
    cores: int
    pool: ProcessPoolExecutor

    @property
    def images(self) -> str:
        return str(self.folder / "images")

    @property
    def network(self) -> str:
        return str(self.folder / "network.onnx")

    def spark(self) -> SparkSession:
        return get_session("benchmark", {"spark.master": f"local[{self.cores}]"})


@contextmanager
def opened(folder: Path, cores: int) -> Iterator[Work]:
    """Yield the work in ``folder``; its pool starts processes when it is first used, and ends them at the end."""
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield Work(folder, cores, pool)


def lakemill(work: Work, output: str) -> None:
    steps = [
        {"image": PHOTO},
        {"model": {"uri": work.network}},
        {"format": {"input": "logits", "softmax": True, "top_k": predict_plain.TOP_K}},
    ]
    config = PredictConfig.load(source__table=work.images, pipeline__steps=steps, output__table=output)
    predict_table(config, work.spark())


def loop(work: Work, output: str) -> None:
    """Score one row group at a time in each process, and commit what comes back once."""
    _loop(work, output, predict_plain.score)


def loop_lakemill_images(work: Work, output: str) -> None:
    """The loop with Lakemill's image code instead of its own: what is left between the two is the engine."""
    _loop(work, output, score_with_lakemill_images)


def _loop(work: Work, output: str, score: Score) -> None:
    paths = DeltaTable(work.images).file_uris()
    groups = [(path, group) for path in paths for group in range(pq.ParquetFile(path).num_row_groups)]
    parts = work.pool.map(functools.partial(score_row_group, score, work.network), *zip(*groups, strict=True))
    write_deltalake(output, pa.concat_tables(parts))


def score_row_group(score: Score, network: str, path: str, group: int) -> pa.Table:
    rows = pq.ParquetFile(path).read_row_group(group, ["path", "content"])
    out = pa.table(score(network, rows["content"].to_pylist())).to_struct_array()
    return rows.select(["path"]).append_column("out", out)


def score_with_lakemill_images(network: str, contents: Sequence[bytes]) -> dict[str, list[Any]]:
    decoder, rows = ImageDecoder(ImageStep(**PHOTO)), predict_plain.BATCH_ROWS
    batches = [contents[start : start + rows] for start in range(0, len(contents), rows)]
    return predict_plain.joined(
        predict_plain.infer(network, decoder.run(batch, [None] * len(batch))[0]) for batch in batches
    )


def save_pyfunc(folder: Path, network: str) -> None:
    """Save ``predict_pyfunc.py`` as an MLflow model."""
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, Schema

    save_model(
        folder,
        python_model=str(Path(__file__).with_name("predict_pyfunc.py")),
        artifacts={"network": network},
        signature=ModelSignature(Schema([ColSpec("binary", "content")])),
        pip_requirements=[],
    )


def spark_udf(work: Work, output: str) -> None:
    import mlflow

    spark = work.spark()
    classify = mlflow.pyfunc.spark_udf(spark, str(work.folder / "pyfunc"), result_type=OUT, env_manager="local")
    images = spark.read.format("delta").load(work.images)
    images.select("path", classify("content").alias("out")).write.format("delta").save(output)


def predict_batch_udf(work: Work, output: str) -> None:
    """``predict_batch_udf`` takes numbers only, so photographs are decoded by a UDF before it."""
    from pyspark.ml import functions
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import StructType

    # Spark's default is 10,000 rows a batch: of prepared photographs, 600 KB each, that is 6 GB.
    spark = session_with(work.spark(), {"spark.sql.execution.arrow.maxRecordsPerBatch": "64"})
    prepare = pandas_udf(prepare_rows, "array<float>")
    classify = functions.predict_batch_udf(
        functools.partial(make_predict, work.network),
        return_type=StructType.fromDDL(OUT),
        batch_size=predict_plain.BATCH_ROWS,
        input_tensor_shapes=[[3, predict_plain.SIZE, predict_plain.SIZE]],
    )
    images = spark.read.format("delta").load(work.images)
    images.select("path", classify(prepare("content")).alias("out")).write.format("delta").save(output)


def prepare_rows(contents: pd.Series) -> pd.Series:
    return contents.map(lambda data: predict_plain.prepare(data).ravel())


def make_predict(network: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    predict_plain.load(network)
    return functools.partial(predict_plain.infer, network)


SYSTEMS = {system.__name__: system for system in (lakemill, loop, loop_lakemill_images, spark_udf, predict_batch_udf)}
