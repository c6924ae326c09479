"""The change feed as Spark reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig, predict_table
from tests.lake import digits_job, onnx_classifier, png, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 6 images, in a table that records its changes, and a model."""
    setting = "spark.databricks.delta.properties.defaults.enableChangeDataFeed"
    spark.conf.set(setting, "true")
    write_images(spark, tmp_path / "images", 0, 6)
    spark.conf.unset(setting)
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def upsert(lake: Path, *overrides: str) -> PredictConfig:
    return digits_job(lake, "source.changes=upsert", *overrides)


def predictions(lake: Path) -> dict[int, dict[str, Any]]:
    """Read the predictions with the independent reader, by number of the image."""
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    found = {int(row["path"][4:8]): row for row in rows}
    assert len(found) == len(rows)
    return found


def change(spark: SparkSession, lake: Path, statement: str) -> None:
    spark.sql(statement.format(images=f"delta.`{lake}/images`"))


def repaint(number: int, seed: int) -> str:
    """Return the SQL that gives an image other pixels."""
    return f"UPDATE {{images}} SET content = X'{png(seed).hex()}', label = 'new' WHERE number = {number}"  # noqa: S608


def test_a_feed_that_is_off_or_came_too_late_is_said(lake: Path, spark: SparkSession) -> None:
    off = "ALTER TABLE {images} SET TBLPROPERTIES (delta.enableChangeDataFeed = false)"
    predict_table(upsert(lake), spark)
    with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_OTHER_JOB\].*changes"):
        predict_table(digits_job(lake), spark)
    change(spark, lake, off)
    with pytest.raises(LakemillError, match=r"^\[FEED_DISABLED\].*delta.enableChangeDataFeed = true"):
        predict_table(upsert(lake), spark)
    change(spark, lake, repaint(1, 12))
    change(spark, lake, off.replace("false", "true"))
    with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\]"):
        predict_table(upsert(lake), spark)
    assert len(predictions(lake)) == 6
