"""How many rows a batch has where nothing says it: as many as the processor's cache holds, and a model gains by."""

from __future__ import annotations

import pytest

from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import PythonStep
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
