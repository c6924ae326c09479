"""``Pipeline.transform``: the same numbers as in this process, and tensors from one pipeline to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lakemill import Pipeline, PythonStep
from tests.lake import digits_job, onnx_classifier, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MATRICES = """
import numpy as np


def matrix(inputs):
    return {"m": np.repeat(inputs["number"], 6).reshape(-1, 2, 3).astype("uint8")}


def total(inputs):
    return {"total": inputs["m"].astype("int64").sum(axis=(1, 2))}
"""


def test_transform_and_infer_give_the_same(tmp_path: Path, spark: SparkSession) -> None:
    onnx_classifier(tmp_path / "model.onnx")
    write_images(spark, tmp_path / "images", 0, 12)
    config = digits_job(tmp_path)
    plain = config.pipeline.declared()
    pipeline = Pipeline(plain.steps, plain.checks)
    frame = spark.read.format("delta").load(f"{tmp_path}/images")
    on_spark = pipeline.transform(frame).orderBy("path").toPandas()
    in_process = pipeline.infer(frame.orderBy("path").toPandas())
    assert [row["label"] for row in on_spark["out"]] == in_process["out.label"].tolist()
    np.testing.assert_array_equal([row["probability"] for row in on_spark["out"]], in_process["out.probability"])


def test_a_tensor_that_one_pipeline_wrote_feeds_the_next(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "matrices.py").write_text(MATRICES)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_images(spark, tmp_path / "images", 0, 5)
    first = Pipeline((PythonStep("matrices:matrix", {"m": {"dtype": "uint8", "shape": [2, 3]}}, {"number": "number"}),))
    second = Pipeline((PythonStep("matrices:total", {"total": {"dtype": "int64"}}, {"m": "m"}),))
    made = first.transform(spark.read.format("delta").load(f"{tmp_path}/images")).select("path", "out.m")
    made.write.format("delta").save(f"{tmp_path}/tensors")
    totals = second.transform(spark.read.format("delta").load(f"{tmp_path}/tensors")).orderBy("path").toPandas()
    assert [row["total"] for row in totals["out"]] == [0, 6, 12, 18, 24]
