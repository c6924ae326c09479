"""Upkeep of a job's tables, and tables of a catalog, which only Spark has."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deltalake import DeltaTable

from lakemill import PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.predict.redo import retry_errors, undo_run
from lakemill.predict.run import PredictResult
from lakemill.predict.status import job_status
from lakemill_udfs.errors import ConfigError
from tests.lake import digits_job, image_rows, onnx_classifier, steps, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 6 images, one of them broken, a model and a job."""
    write_images(spark, tmp_path / "images", 0, 6, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(tmp_path)))
    return tmp_path


def job(lake: Path) -> dict[str, Any]:
    return {
        "name": "digits",
        "source": {"table": f"{lake}/images", "columns": ["label"]},
        "pipeline": {"steps": steps(lake / "model.onnx")},
        "output": {"table": f"{lake}/predictions"},
    }


def config_of(lake: Path, *overrides: str) -> PredictConfig:
    return PredictConfig.load(lake / "job.yaml", overrides)


def predictions(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def command(lake: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run a command of the command line and return the facts it prints."""
    assert run([*arguments, "--config", f"{lake}/job.yaml", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_compaction_of_the_output_hinders_no_run(
    lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_table(config_of(lake), spark)
    write_images(spark, lake / "images", 6, 1)
    predict_table(config_of(lake), spark)
    facts = command(lake, capsys, "optimize")
    assert facts[f"{lake}/predictions"]["files_removed"] == 2
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    write_images(spark, lake / "images", 7, 1)
    assert predict_table(config_of(lake), spark).rows == 1
    assert len(predictions(lake)) == 8


def test_vacuum_leaves_what_time_travel_and_jobs_need(
    lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_table(config_of(lake), spark)
    left_by_a_crash = lake / "predictions" / "part-00000-of-no-commit.snappy.parquet"
    left_by_a_crash.write_bytes(b"PAR1")
    os.utime(left_by_a_crash, (time.time() - 8 * DAY_SECONDS,) * 2)
    write_images(spark, lake / "images", 6, 1)
    predict_table(config_of(lake), spark)
    command(lake, capsys, "optimize")
    facts = command(lake, capsys, "vacuum")
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    assert not left_by_a_crash.exists()
    earlier = DeltaTable(f"{lake}/predictions", version=1).to_pyarrow_table()
    assert len(earlier) == 6, "files of versions within the retention are there"
    write_images(spark, lake / "images", 7, 1)
    assert predict_table(config_of(lake), spark).rows == 1


def test_tables_of_a_catalog_in_every_mode(tmp_path: Path, spark: SparkSession) -> None:
    spark.sql("CREATE DATABASE housekeeping")
    try:
        onnx_classifier(tmp_path / "model.onnx")
        spark.createDataFrame(image_rows(0, 4, broken=(1,))).write.format("delta").option(
            "delta.enableChangeDataFeed", "true"
        ).saveAsTable("housekeeping.images")
        places = {
            "source__table": "housekeeping.images",
            "output__table": "housekeeping.predictions",
            "output__checkpoint": f"{tmp_path}/checkpoint",
        }

        def score(*overrides: str) -> PredictResult:
            return predict_table(digits_job(tmp_path, "source.changes=upsert", *overrides, **places), spark)

        assert score().rows == 4
        spark.sql("UPDATE housekeeping.images SET label = 'new' WHERE number < 2")
        assert score().rows == 2
        assert score("mode=where", "source.where=label = 'new'").rows == 2
        with pytest.raises(ConfigError, match=r"^\[CHECKPOINT_OTHER_JOB\].* changes \('upsert', now 'append'\)"):
            score("mode=missing", "source.changes=append")  # it would take rows that changed for scored
        assert score("mode=missing").batches == 0
        job = digits_job(tmp_path, "source.changes=upsert", **places)
        assert retry_errors(job, spark).rows_error == 1
        found = job_status(job, spark)
        assert (found.rows, found.rows_error) == (4, 1)
        assert undo_run(job, found.runs[0]["run_id"], spark) == 1
        # the undone row, and one that changed in the same version of the source: whether before it is not known
        assert score().rows == 2
        predictions = spark.table("housekeeping.predictions")
        assert (predictions.count(), predictions.select("path").distinct().count()) == (4, 4)
    finally:
        spark.sql("DROP DATABASE housekeeping CASCADE")
