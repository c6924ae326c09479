"""``Pipeline.transform``: every form of output through Spark and Delta, as other readers see it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from PIL import Image

from lakemill import Pipeline
from lakemill_udfs.steps.declared import FormatStep, PythonStep

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HEIGHT, WIDTH = 2052, 2456

FUNCTIONS = '''
import numpy as np


def stain(inputs):
    """What a virtual staining model gives for each frame."""
    frame = inputs["frame"]
    mask = (frame > frame.mean()).astype("uint16") * 7
    grey = (frame >> 8).astype("uint8")
    return {
        "image": frame,
        "virtual_stain": np.stack([grey, 255 - grey, grey // 2], axis=-1),
        "mask_overlay": np.maximum(frame, mask),
        "mask": mask,
    }


def kinds(inputs):
    """One output of each kind, for each number of things found."""
    n = inputs["n"]
    rows = len(n)
    boxes, scores = np.empty(rows, object), np.empty(rows, object)
    for row, count in enumerate(n):
        boxes[row] = np.arange(4 * count, dtype="float32").reshape(count, 4)
        scores[row] = np.linspace(0.9, 0.6, count, dtype="float32")
    return {
        "found": n > 0,
        "name": np.array([f"row {count}" for count in n], object),
        "cube": np.arange(rows * 8, dtype="float16").reshape(rows, 2, 2, 2),
        "grid": np.tile(np.arange(4, dtype="int32").reshape(2, 2), (rows, 1, 1)),
        "picture": np.tile(np.arange(12, dtype="uint8").reshape(2, 2, 3), (rows, 1, 1, 1)),
        "places": boxes,
        "confidence": scores,
    }
'''


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a user's module beside the lake, importable on the driver only."""
    (tmp_path / "stains.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("stains", None)


def test_a_frame_and_four_outputs_of_its_size_pass_through_delta_exactly(tmp_path: Path, spark: SparkSession) -> None:
    size = [HEIGHT, WIDTH]
    step = PythonStep(
        "stains:stain",
        {
            "image": {"dtype": "uint16", "shape": size},
            "virtual_stain": {"dtype": "uint8", "shape": [*size, 3]},
            "mask_overlay": {"dtype": "uint16", "shape": size},
            "mask": {"dtype": "uint16", "shape": size},
        },
        {"frame": "frame"},
    )
    frame = np.random.default_rng(0).integers(0, 2**16, (1, HEIGHT, WIDTH), dtype=np.uint16)
    given = Pipeline((step,)).infer(pd.DataFrame({"frame": [frame[0]]}))
    schema = pa.schema([pa.field("frame", pa.binary())])
    rows = spark.createDataFrame(pa.table({"frame": [frame.tobytes()]}, schema=schema))
    tagged = rows.withMetadata("frame", {"lakemill.dtype": "uint16", "lakemill.shape": str(size)})
    Pipeline((step,)).transform(tagged).write.format("delta").save(str(tmp_path / "stained"))
    out = DeltaTable(tmp_path / "stained").to_pyarrow_table(columns=["out"])["out"][0]
    wanted = {
        "image": frame[0],
        "mask": (frame[0] > frame.mean()).astype("uint16") * 7,
        "mask_overlay": np.maximum(frame[0], (frame[0] > frame.mean()).astype("uint16") * 7),
    }
    for name, pixels in wanted.items():
        np.testing.assert_array_equal(np.frombuffer(out[name].as_buffer(), "<u2").reshape(size), pixels)
        np.testing.assert_array_equal(given[f"out.{name}"][0], pixels)
    stain = np.frombuffer(out["virtual_stain"].as_buffer(), "u1").reshape(*size, 3)
    np.testing.assert_array_equal(stain[..., 1], 255 - (frame[0] >> 8))


def test_sql_reads_every_kind_of_output(tmp_path: Path, spark: SparkSession) -> None:
    declared = {
        "found": {"dtype": "bool"},
        "name": {"dtype": "string"},
        "cube": {"dtype": "float16", "shape": [2, 2, 2]},
        "grid": {"dtype": "int32", "shape": [2, 2], "as": "array"},
        "picture": {"dtype": "uint8", "shape": [2, 2, 3]},
        "places": {"dtype": "float32", "shape": [None, 4]},
        "confidence": {"dtype": "float32", "shape": [None]},
    }
    pipeline = Pipeline(
        (
            PythonStep("stains:kinds", declared, {"n": "n"}),
            FormatStep("confidence", boxes="places", threshold=0.7),
            FormatStep("picture", encode="png"),
        )
    )
    table = tmp_path / "kinds"
    pipeline.transform(spark.createDataFrame([(0,), (1,), (3,)], "n long")).write.format("delta").save(str(table))
    spark.read.format("delta").load(str(table)).createOrReplaceTempView("kinds")
    rows = spark.sql(
        """SELECT n, out.found, out.name, out.grid[1][0] AS corner,
        size(out.boxes) AS count, get(out.boxes, 0)[3] AS right,
        out.scores, length(out.cube) AS bytes, out.picture FROM kinds ORDER BY n"""
    ).collect()
    assert [row.found for row in rows] == [False, True, True]
    assert [row.name for row in rows] == ["row 0", "row 1", "row 3"]
    assert [(row.corner, row.bytes) for row in rows] == [(2, 16)] * 3
    assert [(row["count"], row.right) for row in rows] == [(0, None), (1, 3.0), (2, 3.0)]
    assert rows[2].scores == pytest.approx([0.9, 0.75])
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(rows[0].picture))), np.arange(12, dtype="uint8").reshape(2, 2, 3)
    )
