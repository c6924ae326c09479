"""A model a key: each row gets its own key's model, a thousand of them on one worker, within a memory budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakemill import ConfigError, KeyedStep, ModelError, Pipeline
from lakemill_udfs import keyed
from lakemill_udfs.models.cache import ModelCache
from lakemill_udfs.worker import predict_batches
from tests.lake import big_factor_model, factor_model
from tests.unit.plans import plan_for


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model for each of the keys 0 to 9: times the key."""
    folder = tmp_path_factory.mktemp("keyed")
    for key in range(10):
        factor_model(folder / f"store-{key}.onnx", key)
    factor_model(folder / "other.onnx", -1)
    return folder


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> ModelCache:
    """Return an empty cache, as a new worker has it."""
    monkeypatch.setattr(keyed, "KEYED", ModelCache())
    return keyed.KEYED


def step(models: Path, **options: Any) -> KeyedStep:
    return KeyedStep("store", f"{models}/store-{{store}}.onnx", **options)


def test_each_row_has_the_answer_of_its_key_s_model(models: Path) -> None:
    data = pd.DataFrame({"store": np.arange(50) * 7 % 10, "sales": np.arange(50, dtype=np.float32)})
    result = Pipeline((step(models),)).infer(data, dataset=["out", "metadata.models", "metadata.last_model"])
    assert result["out.demand"].tolist() == (data["store"] * data["sales"]).tolist()
    assert [one[0]["name"] for one in result["metadata.models"]] == [f"store-{key}" for key in data["store"]]
    assert [one["model_name"] for one in result["metadata.last_model"]] == [f"store-{key}" for key in data["store"]]


def test_a_key_without_a_model_is_an_error_of_its_rows_or_the_fallback_s(models: Path) -> None:
    schema = pa.schema([("store", pa.string()), ("sales", pa.float32())])
    batch = pa.record_batch([pa.array(["3", "unknown", None, "4"]), pa.array([1, 2, 3, 4], pa.float32())], schema)
    rows = [row for part in predict_batches(plan_for([step(models)], schema), [batch]) for row in part.to_pylist()]
    assert [row["out"] and row["out"]["demand"] for row in rows] == [3, None, None, 16]
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, *["MODEL_KEY_UNKNOWN"] * 2, None]
    assert [len(row["metadata"]["models"]) for row in rows] == [1, 0, 0, 1]
    assert "unknown" not in str(rows[1]["error"])
    plan = plan_for([step(models, fallback=str(models / "other.onnx"))], schema)
    rows = [row for part in predict_batches(plan, [batch]) for row in part.to_pylist()]
    assert [row["out"]["demand"] for row in rows] == [3, -2, -3, 16]
    assert rows[1]["metadata"]["models"][0]["name"] == "other"


def test_a_table_says_the_models_too_and_survives_yaml(models: Path, tmp_path: Path) -> None:
    table = {1: str(models / "store-1.onnx"), "two": str(models / "store-2.onnx")}
    pipeline = Pipeline((KeyedStep("store", table=table),))
    pipeline.to_yaml(tmp_path / "pipeline.yaml")
    assert Pipeline.from_yaml(tmp_path / "pipeline.yaml") == pipeline
    assert pipeline.infer({"store": ["1", "two"], "sales": np.ones(2, np.float32)})["out.demand"] == [1, 2]


def test_what_cannot_work_is_said_before_anything_runs(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MODELS_STEP"):
        KeyedStep("store", "models/{shop}.onnx")
    with pytest.raises(ConfigError, match="MODELS_STEP"):
        KeyedStep("store")
    with pytest.raises(ModelError, match="MODEL_NOT_FOUND"):
        Pipeline((KeyedStep("store", f"{tmp_path}/none-{{store}}.onnx"),)).resolve()
    odd = factor_model(tmp_path / "odd.onnx", 1, output="price")
    mixed = KeyedStep("store", table={1: str(models / "store-1.onnx"), 2: str(odd)})
    with pytest.raises(ModelError, match=r"MODELS_DIFFER.*'2'.*gives demand.*gives price"):
        Pipeline((mixed,)).infer({"store": [1], "sales": np.ones(1, np.float32)})
    digest = Pipeline((step(models),)).resolve().pipeline.steps[0].sha256
    assert Pipeline((step(models, sha256=digest),)).resolve().pipeline.steps[0].sha256 == digest
    with pytest.raises(ModelError, match="MODEL_CHANGED"):
        Pipeline((step(models, sha256="0" * 64),)).resolve()


def test_threads_share_the_models_of_keys_within_the_budget(models: Path, fresh: ModelCache, tmp_path: Path) -> None:
    for number in range(2):
        big_factor_model(tmp_path / f"store-{number}.onnx")
    keyed_step = KeyedStep("store", f"{tmp_path}/store-{{store}}.onnx", memory_mib=1)
    schema = pa.schema([("store", pa.int64()), ("sales", pa.float32())])
    plan = plan_for([keyed_step], schema, batch_rows=4)
    batch = pa.record_batch([pa.array([0, 1] * 40), pa.array(np.ones(80, np.float32))], schema)

    def score(_: int) -> int:
        return sum(row["out"]["demand"] == 1 for part in predict_batches(plan, [batch]) for row in part.to_pylist())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score, range(8))) == [80] * 8
    assert sum(entry.model_bytes for entry in fresh.entries.values()) <= 2**20


def test_rows_of_a_key_are_put_together_from_several_batches(fresh: ModelCache, tmp_path: Path) -> None:
    """Two models of which one fits: with rows in turn, each pass of 8 batches loads each model once."""
    for number in range(2):
        big_factor_model(tmp_path / f"store-{number}.onnx")
    step = KeyedStep("store", f"{tmp_path}/store-{{store}}.onnx", memory_mib=1)
    schema = pa.schema([("store", pa.int64()), ("sales", pa.float32())])
    plan = replace(plan_for([step], schema, batch_rows=4), task_metrics=True)
    batch = pa.record_batch([pa.array([0, 1] * 64), pa.array(np.arange(128, dtype=np.float32))], schema)
    made = [row for part in predict_batches(plan, [batch]) for row in part.to_pylist()]
    assert [row["out"]["demand"] for row in made] == list(range(128))
    task = made[-1]["_task"]
    assert (task["batches"], task["models_loaded"], task["models_dropped"]) == (4, 8, 7)
