"""Models of keys in whole jobs, and from a registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import KeyedStep, Pipeline, PredictConfig, predict_table
from lakemill.pipelines.registry import mlflow_at
from lakemill_udfs import keyed
from lakemill_udfs.models.cache import ModelCache
from tests.lake import big_factor_model, factor_model


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> ModelCache:
    """Return an empty cache, as a new worker has it."""
    monkeypatch.setattr(keyed, "KEYED", ModelCache())
    return keyed.KEYED


def test_registered_models_are_found_by_their_alias(tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    with mlflow_at(registry) as mlflow:
        import mlflow.onnx

        for key in (1, 2, 3):
            info = mlflow.onnx.log_model(
                onnx.load(str(factor_model(tmp_path / f"store-{key}.onnx", key))),
                name="m",
                registered_model_name=f"demand-{key}",
                pip_requirements=[],
            )
            if key != 3:
                mlflow.MlflowClient().set_registered_model_alias(
                    f"demand-{key}", "production", info.registered_model_version
                )
    pipeline = Pipeline((KeyedStep("store", "models:/demand-{store}@production"),))
    resolved = pipeline.resolve(registry)
    assert [*resolved.pipeline.steps[0].table] == ["1", "2"]
    assert [model.version for model in resolved.models] == ["1", "1"]


def test_a_thousand_models_on_one_worker_within_a_budget(tmp_path: Path, fresh: ModelCache) -> None:
    """All rows are right, the plan stays small, and models that were not used for longest are dropped."""
    for key in range(1000):
        factor_model(tmp_path / f"store-{key}.onnx", key)
    for padding in range(2):  # two models of 600 KiB, so that 1 MiB holds one of them
        big_factor_model(tmp_path / f"store-big{padding}.onnx")
    write_deltalake(
        tmp_path / "sales",
        pa.table(
            {
                "path": [f"row{row}" for row in range(5000)],
                "store": [*(str(row % 1000) for row in range(4998)), "big0", "big1"],
                "sales": pa.array(np.ones(5000), pa.float32()),
            }
        ),
    )
    config = PredictConfig.load(
        None,
        ["engine.name=local"],
        name="demand",
        source__table=f"{tmp_path}/sales",
        source__columns=["store"],
        pipeline__steps=[{"models": {"by": "store", "uri": f"{tmp_path}/store-{{store}}.onnx", "memory_mib": 1}}],
        output__table=f"{tmp_path}/predictions",
    )
    assert predict_table(config).rows_error == 0
    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert all(row["out"]["demand"] == float(row["store"]) for row in rows if row["store"].isdigit())
    assert {row["metadata"]["models"][0]["name"] for row in rows} == {
        *(f"store-{key}" for key in range(1000)),
        "store-big0",
        "store-big1",
    }
    tasks = DeltaTable(tmp_path / "predictions_tasks").to_pyarrow_table().to_pylist()
    assert sum(task["models_loaded"] for task in tasks) >= 1002
    assert sum(task["models_dropped"] for task in tasks) >= 1
    assert sum(entry.model_bytes for entry in fresh.entries.values()) <= 2**20
