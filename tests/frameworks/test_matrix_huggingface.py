"""Hugging Face in each form of input, in this process, from Delta to Delta and on Spark: as its own pipeline gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ModelStep, Pipeline, PredictConfig, predict_table
from tests.frameworks.tiny_transformers import MADE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RNG = np.random.default_rng(0)
TEXTS = ["abc def", "a b, c?", "hello you there", "b"]
PIXELS = RNG.integers(0, 255, (4, 40, 30, 3))
SAMPLES = RNG.standard_normal((4, 4000)).astype("float32")
ROWS = {
    "text-classification": pa.array(TEXTS),
    "image-classification": pa.array(PIXELS.tolist(), pa.list_(pa.list_(pa.list_(pa.int64())))),
    "automatic-speech-recognition": pa.array(list(SAMPLES), pa.list_(pa.float32())),
}
FORMS: dict[str, Any] = {
    "dict": lambda rows: {"inputs": rows.to_pylist()},
    "pandas": lambda rows: pd.DataFrame({"inputs": rows.to_pylist()}),
    "polars": lambda rows: pl.from_arrow(pa.table({"inputs": rows})),
    "arrow": lambda rows: pa.table({"inputs": rows}),
}


@dataclass(frozen=True)
class Case:
    """A task with what its own pipeline gives: an output and its value a row."""

    step: ModelStep
    rows: pa.Array
    output: str
    expected: list[Any]

    def same(self, found: Any) -> None:
        """Compare a result's column."""
        for got, value in zip(found, self.expected, strict=True):
            if isinstance(value, str):
                assert got == value
            else:
                is_row = isinstance(got, list | np.ndarray | pl.Series)
                numbers = got if is_row else np.frombuffer(got["data"])  # as a table has it
                np.testing.assert_allclose(np.asarray(numbers, float), value, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module", params=ROWS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    import torch
    from PIL import Image

    torch.manual_seed(0)
    task = str(request.param)
    folder, pipeline = tmp_path_factory.mktemp("model") / "model", MADE[task]()
    pipeline.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "lakemill_task": task}))
    if task == "automatic-speech-recognition":
        return Case(ModelStep(folder), ROWS[task], "text", [pipeline(row.copy())["text"] for row in SAMPLES])
    mains = TEXTS if task == "text-classification" else [Image.fromarray(row.astype("uint8")) for row in PIXELS]
    given = [pipeline(main) for main in mains]
    return Case(ModelStep(folder), ROWS[task], "score", [[one["score"] for one in found] for found in given])


@pytest.mark.parametrize("form", FORMS)
def test_in_process(case: Case, form: str) -> None:
    result = Pipeline((case.step,)).infer(FORMS[form](case.rows), dataset="out")
    column = result[f"out.{case.output}"]
    case.same(column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column))


def test_from_delta_to_delta(case: Case, tmp_path: Path) -> None:
    config = PredictConfig.load(
        name="matrix",
        source={"table": table_of(case, tmp_path), "key": ["id"]},
        pipeline={"steps": Pipeline((case.step,)).to_dict()["steps"]},
        output={"table": f"{tmp_path}/predictions"},
        engine={"name": "local"},
    )
    result = predict_table(config)
    assert (result.rows, result.rows_error) == (len(case.rows), 0)
    rows = sorted(DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist(), key=lambda row: row["id"])
    case.same([row["out"][case.output] for row in rows])


def test_on_spark(spark: SparkSession, case: Case, tmp_path: Path) -> None:
    source = spark.read.format("delta").load(table_of(case, tmp_path))
    rows = Pipeline((case.step,)).transform(source, columns=["id"]).orderBy("id").collect()
    assert [row["error"] for row in rows] == [None] * len(case.rows)
    case.same([row["out"][case.output] for row in rows])


def table_of(case: Case, folder: Path) -> str:
    table = pa.table({"id": pa.array(range(len(case.rows))), "inputs": case.rows})
    write_deltalake(folder / "rows", table)
    return str(folder / "rows")
