"""The dry run: what would be scored and how, and everything that is wrong, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from lakemill import Pipeline, PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.plan.job import plan_job
from lakemill_udfs.steps.declared import ModelStep, PythonStep
from tests.lake import onnx_classifier, steps, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UNDECLARED = """
import mlflow


class Two(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return {"double": model_input["number"].to_numpy() * 2, "half": model_input["number"].to_numpy() / 2}


mlflow.models.set_model(Two())
"""


def job(lake: Path, pipeline: list[dict[str, object]]) -> PredictConfig:
    return PredictConfig.load(
        name="job", source__table=f"{lake}/images", pipeline__steps=pipeline, output__table=f"{lake}/predictions"
    )


def test_what_would_be_scored_is_read_from_the_log_and_nothing_is_written(tmp_path: Path, spark: SparkSession) -> None:
    config = job(tmp_path, steps(onnx_classifier(tmp_path / "model.onnx")))
    write_images(spark, tmp_path / "images", 0, 3)
    first = plan_job(config, spark)
    assert not first.problems
    assert first.waiting is not None
    assert (first.waiting.rows, first.waiting.files, first.waiting.after_version) == (3, 1, None)
    assert not (tmp_path / "predictions").exists()
    (model,) = first.models
    assert (model["name"], model["version"]) == ("model", None)
    (image,) = first.inputs
    assert (image.column, image.tensor, image.feeds) == ("content", "pixels float32[64]", ("step 1: image",))
    assert str(first.output_schema).startswith(
        "path string, time timestamp, out struct<label:string,probability:float>, anomaly struct<count:int>"
    )
    assert {setting["name"] for setting in first.settings} >= {"spark.sql.parquet.columnarReaderBatchSize"}
    assert first.batch["row_bytes"] is None  # a label has no fixed size
    predict_table(config, spark)
    assert spark.createDataFrame([], first.output_schema or "").schema.names == (
        spark.read.format("delta").load(str(tmp_path / "predictions")).columns
    )
    write_images(spark, tmp_path / "images", 3, 2)
    later = plan_job(config, spark).waiting
    assert later is not None
    assert (later.rows, later.files, later.after_version, later.version) == (2, 1, 0, 1)


def test_all_problems_come_at_once_and_are_exit_code_2(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(spark, tmp_path / "images", 0, 1)
    config = {
        "source": {"table": f"{tmp_path}/images", "where": "nowhere > 1", "key": ["id"], "columns": ["colour"]},
        "pipeline": {
            "steps": [
                {"model": {"uri": "models/lost.onnx"}},
                {"python": {"function": "no_such_module:f", "inputs": {"x": "pixel"}, "outputs": {"y": {}}}},
                {"format": {"input": "modification_time"}},
            ],
            "checks": [{"name": "bad", "expr": "sum(out.y) > 1"}, {"name": "worse", "expr": "out.y >"}],
        },
        "output": {"table": f"{tmp_path}/predictions"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    assert run(["plan", "--config", f"{tmp_path}/job.yaml", "--json"]) == 2
    problems = json.loads(capsys.readouterr().out.splitlines()[-1])["problems"]
    assert {problem["code"] for problem in problems} == {
        "MODEL_NOT_FOUND",
        "FUNCTION_NOT_FOUND",
        "CHECK_ACROSS_ROWS",
        "CHECK_EXPRESSION",
        "COLUMN_MISSING",
        "WHERE_INVALID",
        "COLUMN_TYPE",
    }
    assert run(["plan", "--config", f"{tmp_path}/job.yaml"]) == 2
    assert "[COLUMN_MISSING] source" in capsys.readouterr().out


def test_a_probe_says_what_a_model_that_does_not_say_gives(tmp_path: Path, spark: SparkSession) -> None:
    import mlflow.pyfunc

    (tmp_path / "two.py").write_text(UNDECLARED)
    mlflow.pyfunc.save_model(tmp_path / "two", python_model=str(tmp_path / "two.py"), pip_requirements=["mlflow"])
    step = ModelStep(str(tmp_path / "two"), inputs={"number": "number"})
    given = spark.createDataFrame([(1,), (2,)], "number long")
    report = Pipeline((step,)).plan(given, probe=True)
    assert [problem["code"] for problem in report.problems] == ["MODEL_OUTPUT_UNKNOWN"]
    text = str(report)
    found = yaml.safe_load(text[text.index("outputs:\n") : text.index("[MODEL_OUTPUT_UNKNOWN]")])
    assert found["outputs"] == {"double": {"dtype": "int64", "shape": []}, "half": {"dtype": "float64", "shape": []}}
    declared = ModelStep(step.uri, inputs=step.inputs, outputs=found["outputs"])
    assert not Pipeline((declared,)).plan(given).problems


def test_a_plan_of_a_dataframe_says_the_settings_that_a_job_makes_for_itself(
    tmp_path: Path, spark: SparkSession
) -> None:
    config = job(tmp_path, steps(onnx_classifier(tmp_path / "model.onnx")))
    write_images(spark, tmp_path / "images", 0, 2)
    images = spark.read.format("delta").load(f"{tmp_path}/images")
    report = Pipeline(config.pipeline.declared().steps).plan(images)
    settings = {setting["name"]: setting["value"] for setting in report.settings}
    assert settings == {setting["name"]: setting["value"] for setting in plan_job(config, spark).settings}
    # Spark hands over the rows of one model batch at a time.
    assert settings["spark.sql.execution.arrow.maxRecordsPerBatch"] == str(report.batch["rows"])


def test_a_plan_of_data_in_this_process_needs_no_spark() -> None:
    import numpy as np

    step = PythonStep("tests.unit.features:double", {"y": {"dtype": "float64", "shape": [2]}}, {"x": "x"})
    report = Pipeline((step,)).plan({"x": np.ones((3, 2))}, probe=True)
    (form,) = report.inputs
    assert (form.column, form.tensor, form.copies) == ("x", "x float64[2]", False)
    assert report.probe == {"step 1, tests.unit.features:double": {"y": {"dtype": "float64", "shape": [2]}}}
    assert report.exit_code == 0
    assert "no problems" in str(report)
