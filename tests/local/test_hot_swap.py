"""A moved alias is followed in steps of several models: a challenger's, and one of a key's among many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from deltalake import write_deltalake

from lakemill import PredictConfig
from lakemill.config.base import EngineChoice
from lakemill.engines.choice import open_engine
from lakemill.pipelines.registry import mlflow_at
from lakemill.predict.model_updates import ModelUpdates
from lakemill.predict.needs import predict_needs
from lakemill.predict.preparing import prepare
from tests.lake import FORMAT_STEP, IMAGE_STEP, digits_job, image_rows, onnx_classifier


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images and a registry with two versions of three models."""
    folder = tmp_path_factory.mktemp("swap")
    write_deltalake(folder / "images", image_rows(0, 12))
    with mlflow_at(f"sqlite:///{folder}/mlflow.db") as mlflow:
        import mlflow.onnx

        for name in ("digits-0", "digits-1", "digits-2"):
            for bias in (0.0, 1.0):
                model = onnx.load(str(onnx_classifier(folder / "model.onnx", bias=bias)))
                mlflow.onnx.log_model(model, name="m", registered_model_name=name, pip_requirements=[])
            mlflow.MlflowClient().set_registered_model_alias(name, "production", "1")
    return folder


def job(lake: Path, step: dict[str, Any]) -> PredictConfig:
    return digits_job(
        lake,
        "engine.name=local",
        registry=f"sqlite:///{lake}/mlflow.db",
        pipeline__steps=[IMAGE_STEP, step, FORMAT_STEP],
    )


@pytest.mark.parametrize(
    "step",
    [
        {"shadow": {"champion": "models:/digits-0@production", "challengers": {"b": "models:/digits-1@production"}}},
        {"split": {"control": "models:/digits-0@production", "challengers": {"b": "models:/digits-1@production"}}},
        {"models": {"by": "label", "uri": "models:/digits-{label}@production"}},
    ],
    ids=["shadow", "split", "models"],
)
def test_a_moved_alias_changes_its_model_alone(lake: Path, step: dict[str, Any]) -> None:
    config, lines = job(lake, step), list[str]()
    run = prepare(
        config, open_engine(None, predict_needs(config), EngineChoice(name="local")), lines.append, output=False
    )
    updates = ModelUpdates(run)
    assert updates.apply(run) is run
    with mlflow_at(config.registry) as mlflow:
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("digits-1", "production", "2")
        try:
            swapped = updates.apply(run)
            assert updates.apply(swapped) is swapped
        finally:
            client.set_registered_model_alias("digits-1", "production", "1")
    before, after = ([(model.name, model.version) for model in one.plan.models] for one in (run, swapped))
    assert after == [(name, "2" if name == "digits-1" else version) for name, version in before]
    assert swapped.plan.pipeline.version != run.plan.pipeline.version
    assert any("new models from the next batch on" in line for line in lines)
