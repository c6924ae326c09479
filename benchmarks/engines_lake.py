"""What ``engines.py`` works on: tables, models and jobs, made from seeds without Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import predict_plain
import pyarrow as pa
import yaml
from deltalake import DeltaTable, write_deltalake

FEATURES = 20
COLUMNS = [f"feature_{number}" for number in range(FEATURES)]
TREES = 100
PHOTOS_A_FILE, TENSORS_A_FILE, ROWS_A_FILE = 500, 400, 250_000
PIXELS = 224 * 224 * 3
PHOTO: dict[str, Any] = {
    "column": "content",
    "resize_shorter": predict_plain.SHORTER,
    "crop": [predict_plain.SIZE, predict_plain.SIZE],
    "resample": "bicubic",
    "mean": predict_plain.MEAN.tolist(),
    "std": predict_plain.STD.tolist(),
    "layout": "NCHW",
    "dtype": "float32",
    "output": "data_0",
}


def make_photos(folder: Path, count: int) -> None:
    """Photographs of 50 to 200 KB and SqueezeNet, both as an ONNX file and as an MLflow model around it."""
    from predict_data import write_network, write_photos
    from predict_peers import save_pyfunc

    write_photos(folder / "photos", count)
    files = sorted((folder / "photos").iterdir())
    for start in range(0, count, PHOTOS_A_FILE):
        some = files[start : start + PHOTOS_A_FILE]
        rows = {"path": [file.name for file in some], "content": [file.read_bytes() for file in some]}
        write_deltalake(folder / "source", pa.table(rows), mode="append")
    write_network(folder / "network.onnx")
    save_pyfunc(folder / "model", str(folder / "network.onnx"))
    steps: list[Any] = [
        {"image": PHOTO},
        {"model": {"uri": str(folder / "network.onnx")}},
        {"format": {"input": "logits", "softmax": True, "top_k": predict_plain.TOP_K}},
    ]
    write_job(folder, steps, ["path"])


def make_trees(folder: Path, rows: int) -> None:
    """Rows of 20 floats and 100 trees of scikit-learn, logged through MLflow."""
    import mlflow.sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from sklearn.ensemble import HistGradientBoostingRegressor

    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.random((5000, FEATURES)), columns=COLUMNS)
    trees = HistGradientBoostingRegressor(max_iter=TREES).fit(frame, random.random(5000))
    signature = ModelSignature(Schema([ColSpec("float", name) for name in COLUMNS]), Schema([ColSpec("double")]))
    mlflow.sklearn.save_model(
        trees,
        folder / "model",
        signature=signature,
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    for start in range(0, rows, ROWS_A_FILE):
        count = min(ROWS_A_FILE, rows - start)
        values = {name: random.random(count, dtype=np.float32) for name in COLUMNS}
        write_deltalake(folder / "source", pa.table({"id": np.arange(start, start + count), **values}), mode="append")
    write_job(folder, [{"model": {"uri": str(folder / "model")}}], ["id"])


def make_tensors(folder: Path, count: int) -> None:
    """Tensors of 224x224x3 bytes, and a function that looks at one value of each."""
    random = np.random.default_rng(0)
    for start in range(0, count, TENSORS_A_FILE):
        rows = min(TENSORS_A_FILE, count - start)
        values = [random.bytes(PIXELS) for _ in range(rows)]
        write_deltalake(folder / "source", pa.table({"id": np.arange(start, start + rows), "x": values}), mode="append")
    step = {
        "function": "trivial_model:first",
        "inputs": {"x": "x"},
        "outputs": {"y": {"dtype": "uint8", "shape": []}},
    }
    inputs = {"x": {"dtype": "uint8", "shape": [224, 224, 3]}}
    write_job(folder, [{"python": step}], ["id"], inputs=inputs)


def make_commits(folder: Path, commits: int) -> None:
    """Write a table of so many commits that a job has scored already."""
    from lakemill import PredictConfig, predict_table

    make_trees(folder, 1)
    for number in range(1, commits):
        row = {name: pa.array([0.5], pa.float32()) for name in COLUMNS}
        write_deltalake(folder / "source", pa.table({"id": [number], **row}), mode="append")
    DeltaTable(folder / "source").create_checkpoint()
    predict_table(PredictConfig.load(folder / "job.yaml", ["engine.name=local"]))


def write_job(folder: Path, steps: list[Any], key: list[str], **pipeline: Any) -> None:
    """Write the YAML that both engines run."""
    job = {
        "name": folder.name,
        "source": {"table": str(folder / "source"), "key": key},
        "pipeline": {"steps": steps, **pipeline},
        "output": {"table": str(folder / "lakemill")},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def batches(folder: Path, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read a table as a script without an engine does."""
    import pyarrow.parquet as pq

    for path in DeltaTable(str(folder / "source")).file_uris():
        yield from pq.ParquetFile(path, memory_map=True).iter_batches(rows, columns=columns)


MAKERS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "photos": (make_photos, 3000),
    "trees": (make_trees, 1_000_000),
    "tensors": (make_tensors, 3200),
    "small": (make_trees, 1000),
    "idle": (make_commits, 1000),
}
"""How each work is made, and how large it is."""
