"""Models of every light framework on Spark, in each form of input a table has: as the framework called directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill import Pipeline
from tests.models.framework_models import BY_ARRAY, BY_COLUMN, CASES, FRAME, numbers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

IDS = pa.array(range(len(FRAME)))
VALUES = FRAME.to_numpy()
TENSOR = {"lakemill.dtype": "float64", "lakemill.shape": json.dumps([4]), "lakemill.format": "1"}
FORMS = {
    "columns": pa.Table.from_pandas(FRAME),
    "array": pa.table({"inputs": pa.array(list(VALUES), pa.list_(pa.float64()))}),
    "binary tensor": pa.table(
        [pa.array([row.tobytes() for row in VALUES])],
        schema=pa.schema([pa.field("inputs", pa.binary(), metadata=TENSOR)]),
    ),
}
CELLS = [
    pytest.param(name, form, marks=[] if form == ("array" if name in BY_ARRAY else "columns") else pytest.mark.matrix)
    for name in CASES
    for form in FORMS
    if not (name in BY_ARRAY and form == "columns") and not (name in BY_COLUMN and form != "columns")
]


@pytest.mark.parametrize(("name", "form"), CELLS)
def test_on_spark(spark: SparkSession, tmp_path: Path, name: str, form: str) -> None:
    case = CASES[name](tmp_path)
    write_deltalake(tmp_path / "rows", FORMS[form].append_column("id", IDS))
    source = spark.read.format("delta").load(str(tmp_path / "rows"))
    rows = Pipeline((case.step,)).transform(source, columns=["id"]).orderBy("id").collect()
    assert [row["error"] for row in rows] == [None] * len(FRAME)
    found = numbers([row["out"][case.output] for row in rows])
    np.testing.assert_allclose(found.reshape(case.expected.shape), case.expected, rtol=1e-6)
