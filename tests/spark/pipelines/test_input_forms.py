"""What a Delta table can hold of the forms of an input, and what comes of rows that no model can take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakemill import Pipeline, PythonStep, TensorSpec
from lakemill_udfs.tensors.columns import write_tensor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODULE = """
import numpy as np


def made(inputs):
    rows = inputs["number"]
    return {name: (rows[:, None, None] * np.ones((1, 2, 2))).astype(name) for name in
            ("uint8", "uint16", "uint32", "uint64", "float16")}


def doubled(inputs):
    return {name: values * 2 for name, values in inputs.items()}


def shapes(inputs):
    x = inputs["x"]
    return {"y": x.astype("float32"), "size": np.full(len(x), x[0].size)}
"""
DTYPES = ("uint8", "uint16", "uint32", "uint64", "float16")


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "input_form_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "input_form_functions"


def test_unsigned_and_half_numbers_survive_delta(functions: str, tmp_path: Path, spark: SparkSession) -> None:
    tensors = {name: {"dtype": name, "shape": [2, 2]} for name in DTYPES}
    first = Pipeline((PythonStep(f"{functions}:made", tensors, {"number": "number"}),))
    second = Pipeline((PythonStep(f"{functions}:doubled", tensors, {name: name for name in DTYPES}),))
    numbers = spark.createDataFrame(pa.table({"number": pa.array([0, 3, 120], pa.int64())}))
    first.transform(numbers).select("number", "out.*").write.format("delta").save(str(tmp_path / "first"))
    read = spark.read.format("delta").load(str(tmp_path / "first"))
    second.transform(read).select("number", "out.*").write.format("delta").save(str(tmp_path / "second"))
    rows = DeltaTable(tmp_path / "second").to_pyarrow_table().sort_by("number").to_pylist()
    for name in DTYPES:
        got = [np.frombuffer(row[name], np.dtype(name)).tolist() for row in rows]
        assert got == [[0] * 4, [6] * 4, [240] * 4]


def test_every_form_in_delta_gives_what_it_gives_here(functions: str, tmp_path: Path, spark: SparkSession) -> None:
    x = np.arange(12, dtype="float32").reshape(2, 2, 3)
    table = pa.table(
        {
            "bytes": write_tensor(x, TensorSpec("x", "float32", (2, 3))),
            "struct": write_tensor(x, TensorSpec("x", "float32", (None, 3))),
            "nested": pa.array(x.tolist(), pa.list_(pa.list_(pa.float32()))),
            "flat": pa.array(x.reshape(2, -1).tolist(), pa.list_(pa.float32())),
            "flat_dim0": [2, 2],
            "flat_dim1": [3, 3],
        }
    )
    spark.createDataFrame(table).write.format("delta").save(str(tmp_path / "forms"))
    stored = spark.read.format("delta").load(str(tmp_path / "forms"))
    outputs = {"y": {"dtype": "float32", "shape": [2, 3]}, "size": {"dtype": "int64"}}
    for form in ("bytes", "struct", "nested", "flat"):
        declared = () if form in ("nested", "flat") else (TensorSpec(form, "float32", (2, 3)),)
        pipeline = Pipeline((PythonStep(f"{functions}:shapes", outputs, {"x": form}),), inputs=declared)
        on_spark = [
            np.frombuffer(row["y"], "f4").tolist() for row in pipeline.transform(stored).select("out.*").collect()
        ]
        here = pipeline.infer(table, dataset="out.y")["out.y"].chunk(0).to_numpy_ndarray()
        assert sorted(on_spark) == here.reshape(2, -1).tolist() == x.reshape(2, -1).tolist()


def test_rows_that_no_model_can_take_are_error_rows_and_the_others_are_scored(
    functions: str, spark: SparkSession
) -> None:
    values = [[[1.0], [2.0]], [[1.0], [2.0, 3.0]], None, [[4.0, 5.0]], [[None]]]
    rows = pa.table({"id": range(5), "x": pa.array(values, pa.list_(pa.list_(pa.float32())))})
    outputs = {"y": {"dtype": "float32", "shape": [None, None]}, "size": {"dtype": "int64"}}
    pipeline = Pipeline((PythonStep(f"{functions}:shapes", outputs, {"x": "x"}),))
    scored = {row["id"]: row for row in pipeline.transform(spark.createDataFrame(rows)).collect()}
    assert [scored[row]["error"] and scored[row]["error"]["code"] for row in range(5)] == [
        None,
        "TENSOR_SHAPE",
        "INPUT_NULL",
        None,
        "INPUT_NULL",
    ]
    assert all(scored[row]["error"]["stage"] == "cast" for row in (1, 2, 4))
    assert list(scored[0]["out"]["y"]["shape"]) == [2, 1]
    assert list(scored[3]["out"]["y"]["shape"]) == [1, 2]
    assert np.frombuffer(scored[3]["out"]["y"]["data"], "f4").tolist() == [4, 5]
