"""How many rows a batch has where nothing says it: as many as the processor's cache holds, and a model gains by."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep, PythonStep
from lakemill_udfs.tensors.spec import TensorSpec


def batch_rows(columns: int, shape: tuple[int, ...] = ()) -> int:
    names = [f"x{number}" for number in range(columns)]

    def score(**inputs: object) -> object:
        return inputs

    step = PythonStep(score, {"y": {"dtype": "float32"}}, {name: name for name in names})
    table = {name: TensorSpec(name, "float32", shape) for name in names}
    return make_plan(resolve(Pipeline((step,))), table).batch_rows


@pytest.mark.parametrize(("columns", "rows"), [(1, 65_536), (20, 13_107), (1000, 4096)])
def test_single_numbers_fill_two_mebibytes_together(columns: int, rows: int) -> None:
    assert batch_rows(columns) == rows


def test_tensors_fill_four_mebibytes_each() -> None:
    assert batch_rows(1, (224, 224, 3)) == 8
    assert batch_rows(3, (64, 64)) == 256
    assert batch_rows(1, (2,)) == 4096


@pytest.mark.parametrize(("size", "rows"), [(20, 13_107), (4, 65_536), (64, 4096)])
def test_lists_of_numbers_go_to_a_model_that_reads_rows_as_single_numbers_do(
    tmp_path: Path, size: int, rows: int
) -> None:
    model = LinearRegression().fit(np.eye(size), np.arange(size))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    step = ModelStep(tmp_path / "model.pkl", outputs={"predictions": {"dtype": "float64"}}, trust=True)
    table = {"inputs": TensorSpec("inputs", "float32", (size,))}
    assert make_plan(resolve(Pipeline((step,))), table, threads=1).batch_rows == rows
    more = make_plan(resolve(Pipeline((step,))), table, threads=2).batch_rows
    assert more == min(65_536, 2 * rows), "its threads deal the rows out"
