"""Each framework, in each form of input, in this process and from Delta to Delta: as the framework called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from lakemill import Pipeline, PredictConfig, predict_table
from tests.models.framework_models import BY_ARRAY, BY_COLUMN, CASES, COLUMNS, FRAME, Case, numbers

ARRAY = pa.table({"inputs": pa.array(list(FRAME.to_numpy()), pa.list_(pa.float64(), 4))})


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Case]:
    return request.param, CASES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("form", ["pandas", "arrow", "polars", "dict", "array", "array in pandas", "array as dict"])
def test_in_process(case: tuple[str, Case], form: str) -> None:
    name, model = case
    if (name in BY_ARRAY and "array" not in form) or (name in BY_COLUMN and "array" in form):
        return  # such a model has no such form of input
    data: Any = {
        "pandas": lambda: FRAME,
        "arrow": lambda: pa.Table.from_pandas(FRAME),
        "polars": lambda: pl.from_pandas(FRAME),
        "dict": lambda: {column: FRAME[column].tolist() for column in COLUMNS},
        "array": lambda: ARRAY,
        "array in pandas": ARRAY.to_pandas,
        "array as dict": lambda: {"inputs": FRAME.to_numpy()},
    }[form]()
    result = Pipeline((model.step,)).infer(data, dataset="out")
    found = numbers(list(result[f"out.{model.output}"]) if not isinstance(result, pa.Table) else result[0].to_pylist())
    np.testing.assert_allclose(found.reshape(model.expected.shape), model.expected, rtol=1e-6)


def test_from_delta_to_delta_without_java(case: tuple[str, Case], tmp_path: Path) -> None:
    name, model = case
    table = pa.Table.from_pandas(FRAME).append_column("id", pa.array(range(len(FRAME))))
    if name in BY_ARRAY:
        table = table.append_column("inputs", ARRAY["inputs"].cast(pa.list_(pa.float64())))
    write_deltalake(tmp_path / "rows", table)
    job = {
        "name": name.replace("_", "-"),
        "source": {"table": str(tmp_path / "rows"), "key": ["id"]},
        "pipeline": {"steps": Pipeline((model.step,)).to_dict()["steps"]},
        "output": {"table": str(tmp_path / "predictions")},
        "engine": {"name": "local"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    result = predict_table(PredictConfig.load(tmp_path / "job.yaml"))
    assert (result.rows, result.rows_error) == (len(FRAME), 0)
    rows = sorted(DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist(), key=lambda row: row["id"])
    found = numbers([row["out"][model.output] for row in rows])
    np.testing.assert_allclose(found.reshape(model.expected.shape), model.expected, rtol=1e-6)
