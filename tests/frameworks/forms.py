"""One array in each form of input, in this process, from Delta to Delta and on Spark: what the heavy matrices share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from lakemill import ModelStep, Pipeline, PredictConfig, predict_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

X = np.random.default_rng(0).random((20, 4), dtype="float32")
LISTS = pa.table({"x": pa.array(list(X), pa.list_(pa.float32()))})
FORMS: dict[str, Any] = {
    "dict of an array": lambda: {"x": X},
    "dict of lists": lambda: {"x": X.tolist()},
    "pandas": lambda: pd.DataFrame({"x": list(X)}),
    "polars": lambda: pl.from_arrow(LISTS),
    "arrow lists": lambda: LISTS,
    "arrow tensors": lambda: pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(X)}),
    "arrow of fixed size": lambda: pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 4)}),
}


def in_process(step: ModelStep, form: str) -> np.ndarray[Any, Any]:
    """Return the only output for ``X`` in a form of input."""
    result = Pipeline((step,)).infer(FORMS[form](), dataset="out")
    if isinstance(result, dict):
        (column,) = result.values()
    elif isinstance(result, pa.Table):
        column = result[0].combine_chunks()
        column = column.to_numpy_ndarray() if isinstance(column, pa.FixedShapeTensorArray) else column.to_pylist()
    else:
        column = result[result.columns[0]].to_list()
    return np.array([np.asarray(cell) for cell in column])


def from_delta_to_delta(step: ModelStep, output: str, folder: Path) -> np.ndarray[Any, Any]:
    """Return the output that a job of the local engine wrote for ``X``."""
    write_deltalake(folder / "rows", LISTS.append_column("id", pa.array(range(len(X)))))
    config = PredictConfig.load(
        name="matrix",
        source={"table": f"{folder}/rows", "key": ["id"]},
        pipeline={"steps": Pipeline((step,)).to_dict()["steps"]},
        output={"table": f"{folder}/predictions"},
        engine={"name": "local"},
    )
    result = predict_table(config)
    assert (result.rows, result.rows_error) == (len(X), 0)
    rows = sorted(DeltaTable(folder / "predictions").to_pyarrow_table().to_pylist(), key=lambda row: row["id"])
    return np.array([row["out"][output] for row in rows])


TENSOR = {"lakemill.dtype": "float32", "lakemill.shape": json.dumps([4]), "lakemill.format": "1"}
STORED = {
    "array": LISTS,
    "binary tensor": pa.table(
        [pa.array([row.tobytes() for row in X])], schema=pa.schema([pa.field("x", pa.binary(), metadata=TENSOR)])
    ),
}
"""How a table holds ``X``."""


def on_spark(spark: SparkSession, step: ModelStep, output: str, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the output that Spark gives for ``X``, by the form in which a table holds it."""
    found = {}
    for form, table in STORED.items():
        write_deltalake(folder / form, table.append_column("id", pa.array(range(len(X)))))
        source = spark.read.format("delta").load(str(folder / form))
        rows = Pipeline((step,)).transform(source, columns=["id"]).orderBy("id").collect()
        assert [row["error"] for row in rows] == [None] * len(X)
        found[form] = np.array([row["out"][output] for row in rows])
    return found
