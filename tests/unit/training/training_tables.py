"""Small Delta tables to train on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import png

VOLUME = TensorSpec("volume", "float32", (2, 3, 4))


def examples(start: int, count: int) -> pa.Table:
    """Return rows with an image, a tensor, a list, a string and numbers; ``number`` tells them apart."""
    numbers = np.arange(start, start + count)
    volumes = numbers[:, None, None, None] + np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    fields = [
        pa.field("number", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("label_index", pa.int32()),
        pa.field("point", pa.list_(pa.float64())),
        pa.field("volume", VOLUME.arrow_type(), metadata=VOLUME.metadata()),
        pa.field("content", pa.binary()),
    ]
    columns = [
        pa.array(numbers),
        pa.array(numbers / 8),
        pa.array([f"class {number % 3}" for number in numbers]),
        pa.array(numbers % 3, pa.int32()),
        pa.array([[number, 0.5] for number in numbers.tolist()], pa.list_(pa.float64())),
        write_tensor(volumes.astype(np.float32), VOLUME),
        pa.array([png(number) for number in numbers.tolist()]),
    ]
    return pa.table(columns, schema=pa.schema(fields))


def write_examples(folder: Path, count: int = 100, files: int = 3) -> str:
    """Write a table of some files; return its path."""
    edges = np.linspace(0, count, files + 1).astype(int).tolist()
    for start, stop in itertools.pairwise(edges):
        write_deltalake(folder, examples(start, stop - start), mode="append")
    return str(folder)
