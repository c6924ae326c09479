"""Where every row fails by one and the same fault that is no value's, the run stops; else each row has its error."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lakemill_udfs.errors import RunError
from lakemill_udfs.steps.declared import PythonStep
from lakemill_udfs.worker import predict_batches
from tests.unit.plans import plan_for

Y = {"y": {"dtype": "string"}}


def weights(paths: Any) -> dict[str, Any]:
    with open("/nowhere/weights.bin", "rb") as file:  # noqa: PTH123 -- as users write it
        return {"y": [file.read()] * len(paths)}


def undefined(paths: Any) -> dict[str, Any]:
    return {"y": FORGOTTEN}  # type: ignore[name-defined]  # noqa: F821 -- what the test is about


def by_path(paths: Any) -> dict[str, Any]:
    for path in paths:
        with open(path, "rb"):  # noqa: PTH123 -- as above
            pass
    return {"y": paths}


def bad_value(paths: Any) -> dict[str, Any]:
    raise ValueError("the same for all")


def run(function: str, rows: int) -> list[dict[str, Any]]:
    step = PythonStep(f"tests.unit.worker.test_same_fault:{function}", Y, {"paths": "x"})
    table = pa.table({"x": [f"/nowhere/{row}" for row in range(rows)]})
    batches = predict_batches(plan_for([step], table.schema), table.to_batches())
    return [row["error"] for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize(("function", "kind"), [("weights", "FileNotFoundError"), ("undefined", "NameError")])
def test_a_fault_of_all_rows_stops_the_run(function: str, kind: str) -> None:
    with pytest.raises(
        RunError, match=rf"^\[STEP_ENVIRONMENT\] all 4 rows .* {kind} \(test_same_fault.py:\d+\)"
    ) as caught:
        run(function, 4)
    assert "/nowhere" not in str(caught.value)


@pytest.mark.parametrize(("function", "rows"), [("weights", 1), ("by_path", 4), ("bad_value", 4)])
def test_any_other_failure_is_each_rows_own(function: str, rows: int) -> None:
    errors = run(function, rows)
    assert [error["code"] for error in errors] == ["MODEL_FAILED"] * rows
