"""Predictions as Spark's own readers see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from lakemill import predict_table
from tests.lake import digits_job, onnx_classifier, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_outputs_are_plain_sql_and_keep_their_tensor_metadata(tmp_path: Path, spark: SparkSession) -> None:
    write_images(spark, tmp_path / "images", 0, 20, broken=(3, 7))
    onnx_classifier(tmp_path / "model.onnx")
    predict_table(digits_job(tmp_path), spark)
    schema = spark.read.format("delta").load(f"{tmp_path}/predictions").schema
    assert schema["out"].dataType["probability"].metadata["lakemill.dtype"] == "float32"
    rows = DeltaTable(f"{tmp_path}/predictions")
    query = "SELECT count(*) AS n FROM p WHERE out['label'] IS NOT NULL"
    counted = pa.table(QueryBuilder().register("p", rows).execute(query).read_all())
    assert counted["n"][0].as_py() == 18
