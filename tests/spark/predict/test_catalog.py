"""A job whose tables are a catalog's, which only Spark has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakemill import predict_table
from lakemill.predict.redo import retry_errors, undo_run
from lakemill.predict.run import PredictResult
from lakemill.predict.status import job_status
from lakemill_udfs.errors import ConfigError
from tests.lake import digits_job, image_rows, onnx_classifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
