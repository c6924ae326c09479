"""A run says what it trained on, and only a version that scored well enough gets the alias."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakemill import ImageStep, ModelStep, Pipeline
from lakemill.pipelines.registry import mlflow_at
from lakemill.training import log_training_data, make_spark_converter, promote
from lakemill_udfs.errors import ModelError
from tests.lake import onnx_classifier
from tests.unit.training.training_tables import write_examples

STEP = ImageStep(column="content", mode="L", size=(8, 8), layout="flat", output="pixels")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with mlflow_at(uri) as mlflow:
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("training", (tmp_path / "artifacts").as_uri()))
        yield mlflow, uri


def test_a_run_names_the_table_the_version_and_the_step(registry: tuple[Any, str], tmp_path: Path) -> None:
    mlflow, _ = registry
    table = write_examples(tmp_path / "examples", 20)
    converter = make_spark_converter(table, where="number < 5", images=STEP)
    with mlflow.start_run() as run:
        log_training_data(converter)
    logged = mlflow.get_run(run.info.run_id)
    assert logged.data.params["training.version"] == str(converter.table.version) == "2"
    assert (logged.data.params["training.where"], logged.data.params["training.rows"]) == ("number < 5", "5")
    assert json.loads(logged.data.params["training.images"])[0]["size"] == [8, 8]
    (given,) = logged.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.source_type) == ("examples", "delta_table")
    assert json.loads(given.dataset.source)["delta_table_version"] == 2
    again = make_spark_converter(
        logged.data.params["training.table"],
        version=logged.data.params["training.version"],
        where=logged.data.params["training.where"],
    )
    assert len(again) == len(converter)


def test_a_version_is_promoted_only_if_it_scored_well_enough(registry: tuple[Any, str], tmp_path: Path) -> None:
    mlflow, uri = registry
    pipeline = Pipeline((STEP, ModelStep(onnx_classifier(tmp_path / "model.onnx"))))
    for accuracy in (0.8, 0.7, 0.9, None):
        with mlflow.start_run():
            if accuracy is not None:
                mlflow.log_metric("validation_accuracy", accuracy)
            pipeline.log(registered_model_name="digits", registry=uri)

    def alias() -> str:
        return str(mlflow.MlflowClient().get_model_version_by_alias("digits", "production").version)

    def refused(version: int, at_least: float | None = None) -> str:
        with pytest.raises(ModelError) as raised:
            promote("digits", version, metric="validation_accuracy", at_least=at_least, registry=uri)
        assert raised.value.code == "MODEL_NOT_PROMOTED"
        return str(raised.value)

    assert "0.8, below 0.85" in refused(1, 0.85)
    promote("digits", 1, metric="validation_accuracy", at_least=0.75, registry=uri)
    assert alias() == "1"
    assert "version 1, 'production' now, has 0.8" in refused(2)
    assert "no metric" in refused(4)
    assert alias() == "1"
    promote("digits", "3", metric="validation_accuracy", registry=uri)
    assert alias() == "3"
    with pytest.raises(ModelError, match="MODEL_NOT_FOUND"):
        promote("digits", 99, metric="validation_accuracy", registry=uri)
