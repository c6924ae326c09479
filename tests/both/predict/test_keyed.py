"""A model a key, over several tasks: right answers, loads and drops counted, keys without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig
from tests.both.on import On
from tests.lake import big_factor_model, factor_model

FILES, ROWS, KEYS = 4, 48, 6


def sales(lake: Path, stores: list[Any]) -> None:
    """Append a file of sales."""
    first = DeltaTable(lake / "sales").to_pyarrow_table().num_rows if (lake / "sales").exists() else 0
    numbers = np.arange(first, first + len(stores))
    columns = {"id": numbers, "store": pa.array(stores, pa.string()), "sales": numbers.astype(np.float32)}
    write_deltalake(lake / "sales", pa.table(columns), mode="append")


def job(lake: Path, **options: Any) -> PredictConfig:
    step = {"by": "store", "uri": f"{lake}/store-{{store}}.onnx", **options}
    return PredictConfig.load(
        name="demand",
        source={"table": f"{lake}/sales", "key": ["id"], "columns": ["store", "sales"]},
        pipeline={"steps": [{"models": step}]},
        output={"table": f"{lake}/demand"},
        engine={"batch_rows": 8},
    )


def rows_of(lake: Path, name: str = "demand") -> list[dict[str, Any]]:
    return DeltaTable(lake / name).to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]


@pytest.mark.seam
def test_each_task_loads_the_models_of_its_keys_and_says_how_many(tmp_path: Path, on: On) -> None:
    for key in range(KEYS):
        factor_model(tmp_path / f"store-{key}.onnx", key + 0.5)
    factor_model(tmp_path / "other.onnx", -1)
    for _ in range(FILES):
        sales(tmp_path, [*(str(row % KEYS) for row in range(ROWS - 2)), "unknown", None])
    config = job(tmp_path)
    result = on.predict(config)
    assert (result.rows, result.rows_error) == (FILES * ROWS, 2 * FILES)
    for row in rows_of(tmp_path):
        if row["store"] in (None, "unknown"):
            assert row["error"]["code"] == "MODEL_KEY_UNKNOWN"
            assert row["metadata"]["models"] == []
        else:
            assert row["out"]["demand"] == pytest.approx(row["sales"] * (int(row["store"]) + 0.5))
            assert [model["name"] for model in row["metadata"]["models"]] == [f"store-{row['store']}"]
    tasks = rows_of(tmp_path, "demand_tasks")
    assert sum(task["rows"] for task in tasks) == FILES * ROWS
    assert sum(task["models_loaded"] for task in tasks) >= KEYS
    assert all(task["models_loaded"] <= KEYS and task["models_dropped"] == 0 for task in tasks)
    mended = job(tmp_path, fallback=str(tmp_path / "other.onnx")).model_copy(update={"mode": "full"})
    assert on.predict(mended).rows_error == 0
    answers = {row["out"]["demand"] / row["sales"] for row in rows_of(tmp_path) if row["store"] in (None, "unknown")}
    assert answers == {-1.0}


@pytest.mark.seam
def test_a_memory_budget_holds_in_each_worker_and_rows_are_put_together_by_key(tmp_path: Path, on: On) -> None:
    """1 MiB holds one of these models: each pass of a task loads each once, though the rows are in turn."""
    for key in range(3):
        big_factor_model(tmp_path / f"store-{key}.onnx")
    for _ in range(FILES):
        sales(tmp_path, [str(row % 3) for row in range(ROWS)])
    assert on.predict(job(tmp_path, memory_mib=1)).rows_error == 0
    assert all(row["out"]["demand"] == row["sales"] for row in rows_of(tmp_path))
    tasks = rows_of(tmp_path, "demand_tasks")
    loaded, dropped = (sum(task[name] for task in tasks) for name in ("models_loaded", "models_dropped"))
    assert 3 <= loaded <= 3 * sum(task["batches"] for task in tasks)
    assert loaded - dropped <= len({task["pid"] for task in tasks})  # a worker holds one at the end


def test_the_model_of_a_key_that_came_later_is_found_by_the_next_run(tmp_path: Path, on: On) -> None:
    factor_model(tmp_path / "store-1.onnx", 2)
    sales(tmp_path, ["1", "2"])
    assert on.predict(job(tmp_path)).rows_error == 1
    factor_model(tmp_path / "store-2.onnx", 3)
    sales(tmp_path, ["2", "1"])
    assert on.predict(job(tmp_path)).rows_error == 0
    on.retry(job(tmp_path))
    found = {row["id"]: row["out"]["demand"] for row in rows_of(tmp_path)}
    assert found == {0: 0.0, 1: 3.0, 2: 6.0, 3: 6.0}
