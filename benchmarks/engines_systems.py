"""The systems that ``engines.py`` compares; each scores ``FOLDER/source`` into a new Delta table.

    python benchmarks/engines_systems.py SYSTEM WORK FOLDER OUTPUT [--serve]

Run alone it is a whole command; with ``--serve`` it runs once for each line that it reads, and answers with the
seconds, which is the same in a warm process. Peers need no Lakemill, so each may have an environment of its own.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS_A_BATCH = 65_536
SPARK_OUT = "label long, probability float, top_labels array<long>, top_probabilities array<float>"


def lakemill(engine: str, work: str, folder: Path, output: Path) -> None:
    """The job, in this process: what a warm service pays."""
    from lakemill import PredictConfig, get_session, predict_table

    session = get_session("benchmark") if engine == "spark" else None
    options = [f"engine.name={engine}", f"output.table={output}"]
    predict_table(PredictConfig.load(folder / "job.yaml", options), session)


def loop(work: str, folder: Path, output: Path) -> None:
    """What is written by hand: pyarrow, the model, one write; images in as many processes as there are cores."""
    import pyarrow as pa
    from deltalake import write_deltalake

    if work == "photos":
        parts = list(_pool().map(functools.partial(score_photos, str(folder)), *zip(*_row_groups(folder), strict=True)))
    else:
        parts = [score_rows(str(folder), batch) for batch in _batches(folder, ROWS_A_BATCH)]
    write_deltalake(str(output), pa.concat_tables(parts))


def reading(work: str, folder: Path, output: Path) -> None:
    """Reading the Parquet files with pyarrow, and nothing else."""
    for batch in _batches(folder, 64):
        batch.column(batch.num_columns - 1).buffers()


def daft(work: str, folder: Path, output: Path) -> None:
    import daft as d
    from deltalake import write_deltalake

    frame = d.read_deltalake(str(folder / "source"))
    if work == "photos":
        function = d.udf(return_dtype=d.DataType.struct(_daft_out(d)), batch_size=64)(daft_photos)
        scored = frame.select(frame["path"], function(frame["content"], str(folder)).alias("out"))
    else:
        names = [name for name in frame.column_names if name.startswith("feature_")]
        function = d.udf(return_dtype=d.DataType.float64(), batch_size=ROWS_A_BATCH)(daft_rows)
        scored = frame.select(frame["id"], function(str(folder), names, *(frame[n] for n in names)).alias("out"))
    write_deltalake(str(output), scored.to_arrow())


def ray(work: str, folder: Path, output: Path) -> None:
    import ray as r
    from deltalake import DeltaTable, write_deltalake

    r.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    r.data.DataContext.get_current().target_max_block_size = 16 * 2**20  # else one block, and so one core, has all
    rows = r.data.read_parquet(DeltaTable(str(folder / "source")).file_uris())
    function = ray_photos if work == "photos" else ray_rows
    scored = rows.map_batches(
        function, batch_format="pyarrow", batch_size=64 if work == "photos" else ROWS_A_BATCH, fn_args=(str(folder),)
    )
    import pyarrow as pa

    write_deltalake(str(output), pa.concat_tables(r.get(scored.to_arrow_refs())))


def spark_udf(work: str, folder: Path, output: Path) -> None:
    import mlflow

    from lakemill import get_session

    spark = get_session("benchmark")
    kind = SPARK_OUT if work == "photos" else "double"
    score = mlflow.pyfunc.spark_udf(spark, str(folder / "model"), result_type=kind, env_manager="local")
    rows = spark.read.format("delta").load(str(folder / "source"))
    key, names = rows.columns[0], rows.columns[1:]
    rows.select(key, score(*names).alias("out")).write.format("delta").save(str(output))


def predict_batch_udf(work: str, folder: Path, output: Path) -> None:
    """It takes numbers only; for photographs ``benchmarks/predict.py`` compares it."""
    from pyspark.ml.functions import predict_batch_udf as make
    from pyspark.sql import functions as fn
    from pyspark.sql.types import DoubleType

    from lakemill import get_session

    spark = get_session("benchmark")
    rows = spark.read.format("delta").load(str(folder / "source"))
    names = rows.columns[1:]
    score = make(
        functools.partial(make_rows, str(folder)),
        return_type=DoubleType(),
        batch_size=ROWS_A_BATCH,
        input_tensor_shapes=[[len(names)]],
    )
    rows.select("id", score(fn.array(*names)).alias("out")).write.format("delta").save(str(output))


def score_photos(folder: str, path: str, group: int) -> Any:
    import predict_plain
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(path).read_row_group(group, ["path", "content"])
    out = pa.table(predict_plain.score(f"{folder}/network.onnx", rows["content"].to_pylist())).to_struct_array()
    return rows.select(["path"]).append_column("out", out)


def score_rows(folder: str, batch: Any) -> Any:
    """Score record batches of small rows as they are; their frame has the columns that the model was trained on."""
    import pyarrow as pa

    frame = batch.select(batch.schema.names[1:]).to_pandas()
    return pa.table({"id": batch.column(0), "out": _model(folder).predict(frame)})


@functools.cache
def _model(folder: str) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(f"{folder}/model")


@functools.cache
def _pool() -> Any:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def _batches(folder: Path, rows: int) -> Iterator[Any]:
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    for path in DeltaTable(str(folder / "source")).file_uris():
        yield from pq.ParquetFile(path, memory_map=True).iter_batches(rows)


def _row_groups(folder: Path) -> list[tuple[str, int]]:
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    paths = DeltaTable(str(folder / "source")).file_uris()
    return [(path, group) for path in paths for group in range(pq.ParquetFile(path).num_row_groups)]


def _daft_out(d: Any) -> dict[str, Any]:
    kinds = d.DataType
    return {
        "label": kinds.int64(),
        "probability": kinds.float32(),
        "top_labels": kinds.list(kinds.int64()),
        "top_probabilities": kinds.list(kinds.float32()),
    }


def daft_photos(contents: Any, folder: str) -> list[dict[str, Any]]:
    import predict_plain

    found = predict_plain.score(f"{folder}/network.onnx", contents.to_pylist())
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def daft_rows(folder: str, names: list[str], *columns: Any) -> Any:
    import pandas as pd

    frame = pd.DataFrame({name: column.to_arrow().to_numpy() for name, column in zip(names, columns, strict=True)})
    return np.asarray(_model(folder).predict(frame))


def ray_photos(rows: Any, folder: str) -> Any:
    import predict_plain
    import pyarrow as pa

    out = pa.table(predict_plain.score(f"{folder}/network.onnx", rows["content"].to_pylist())).to_struct_array()
    return rows.select(["path"]).append_column("out", out)


def ray_rows(rows: Any, folder: str) -> Any:
    import pyarrow as pa

    return pa.concat_tables([score_rows(folder, batch) for batch in rows.to_batches()])


def make_rows(folder: str) -> Callable[[Any], Any]:
    import pandas as pd

    model = _model(folder)
    names = model.metadata.get_input_schema().input_names()
    return lambda values: np.asarray(model.predict(pd.DataFrame(values, columns=names)))


SYSTEMS: dict[str, Callable[[str, Path, Path], None]] = {
    "lakemill_local": functools.partial(lakemill, "local"),
    "lakemill_spark": functools.partial(lakemill, "spark"),
    **{system.__name__: system for system in (loop, reading, daft, ray, spark_udf, predict_batch_udf)},
}


def fresh(output: Path) -> Path:
    """Remove what an earlier run left: the output and, of Lakemill's, the tables beside it."""
    for suffix in ("", "_checkpoint", "_runs", "_tasks"):
        shutil.rmtree(output.with_name(output.name + suffix), ignore_errors=True)
    return output


def main() -> None:
    name, work, folder, output = sys.argv[1:5]
    run = functools.partial(SYSTEMS[name], work, Path(folder), Path(output))
    if "--serve" not in sys.argv:
        run()
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for line in sys.stdin:
        if line.strip() == "fresh":
            fresh(Path(output))
        started = time.perf_counter()
        run()
        answers.write(f"{time.perf_counter() - started}\n")
        answers.flush()


if __name__ == "__main__":
    from engines_systems import main as importable_main  # what is pickled for workers must have a name there

    importable_main()
