"""A run says what it trained on, and only a version that scored well enough gets the alias."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake

from lakemill import ImageStep, ModelStep, Pipeline
from lakemill.pipelines.registry import mlflow_at
from lakemill.training import log_training_data, make_spark_converter, promote, training_data_of
from lakemill_udfs.errors import ModelError
from tests.lake import onnx_classifier
from tests.unit.training.training_tables import examples, write_examples

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
        log_training_data(make_spark_converter(table, where="number >= 5"), "validation")
    logged = mlflow.get_run(run.info.run_id)
    assert logged.data.params["training.version"] == str(converter.table.version) == "2"
    assert (logged.data.params["training.where"], logged.data.params["training.rows"]) == ("number < 5", "5")
    assert json.loads(logged.data.params["training.images"])[0]["size"] == [8, 8]
    given, _ = logged.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.source_type) == ("examples", "delta_table")
    assert json.loads(given.dataset.source)["delta_table_version"] == 2
    tags = [{tag.key: tag.value for tag in entry.tags} for entry in logged.inputs.dataset_inputs]
    assert {tag["mlflow.data.context"]: tag["where"] for tag in tags} == {
        "training": "number < 5",
        "validation": "number >= 5",
    }


def test_what_a_run_trained_on_is_found_again(registry: tuple[Any, str], tmp_path: Path) -> None:
    mlflow, uri = registry
    table = write_examples(tmp_path / "examples", 20)
    converter = make_spark_converter(table, where="number < 9", images=STEP, dtype="float64")
    with mlflow.start_run() as run:
        log_training_data(converter)
    write_deltalake(table, examples(0, 5), mode="append")
    again = training_data_of(run.info.run_id, registry=uri)
    arguments = {"schema_fields": ["number", "score", "pixels"], "shuffle_rows": True, "seed": 3}
    with converter.make_loader(4, **arguments) as before, again.make_loader(4, **arguments) as after:
        for one, other in zip(before, after, strict=True):
            assert {name: array.tobytes() for name, array in one.items()} == {
                name: array.tobytes() for name, array in other.items()
            }
    with pytest.raises(ModelError, match="TRAINING_NOT_LOGGED"):
        training_data_of(run.info.run_id, "validation", uri)
    with pytest.raises(ModelError, match="MODEL_NOT_FOUND"):
        training_data_of("none", registry=uri)


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
