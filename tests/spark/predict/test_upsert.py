"""Rows that change in the source: stopped at, or scored again, from the change feed or by a column."""

from __future__ import annotations

import shutil
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


def test_changes_of_the_feed_replace_predictions(lake: Path, spark: SparkSession) -> None:
    config = upsert(lake, "source.where=number < 100")
    assert predict_table(config, spark).rows == 6
    before = predictions(lake)
    change(spark, lake, repaint(1, 12).replace("= 1", "IN (1, 5)"))  # version 1
    change(spark, lake, repaint(1, 11))  # 2: only the last state counts
    change(spark, lake, "DELETE FROM {images} WHERE number = 2")  # 3
    write_images(spark, lake / "images", 6, 1)  # 4
    change(spark, lake, "DELETE FROM {images} WHERE number = 3")  # 5: and it comes back
    write_images(spark, lake / "images", 3, 1)  # 6
    change(spark, lake, "UPDATE {images} SET number = 100 WHERE number = 4")  # 7: leaves the predicate
    result = predict_table(config, spark)
    assert (result.rows, result.batches, result.source_version) == (4, 1, 7)
    after = predictions(lake)
    assert sorted(after) == [0, 1, 3, 5, 6]
    versions = {number: row["metadata"]["source_version"] for number, row in after.items()}
    assert versions == {0: 0, 5: 1, 1: 2, 3: 6, 6: 4}
    assert after[1]["label"] == "new"
    assert after[1]["out"] != before[1]["out"]
    assert after[0] == before[0]


def test_optimize_of_the_source_scores_nothing_again_and_predictions_may_be_kept(
    lake: Path, spark: SparkSession
) -> None:
    config = upsert(lake, "source.deleted=keep")
    predict_table(config, spark)
    write_images(spark, lake / "images", 6, 1)
    change(spark, lake, "OPTIMIZE {images} ZORDER BY (number)")
    assert predict_table(config, spark).rows == 1
    change(spark, lake, "DELETE FROM {images} WHERE number = 2")
    assert predict_table(config, spark).rows == 0
    assert len(predictions(lake)) == 7


def test_a_lost_checkpoint_misses_no_change_and_doubles_nothing(lake: Path, spark: SparkSession) -> None:
    predict_table(upsert(lake), spark)
    shutil.rmtree(lake / "predictions_checkpoint")
    change(spark, lake, repaint(1, 12))
    change(spark, lake, "DELETE FROM {images} WHERE number = 2")
    predict_table(upsert(lake), spark)
    rows = predictions(lake)
    assert sorted(rows) == [0, 1, 3, 4, 5]
    assert rows[1]["label"] == "new"


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


def test_a_column_that_changes_takes_the_place_of_the_feed(lake: Path, spark: SparkSession) -> None:
    config = upsert(lake, "source.change_column=number")
    assert predict_table(config, spark).rows == 6
    change(spark, lake, "UPDATE {images} SET number = 77 WHERE number = 1")
    change(spark, lake, "DELETE FROM {images} WHERE number = 2")
    write_images(spark, lake / "images", 6, 1)
    change(spark, lake, "OPTIMIZE {images}")
    result = predict_table(config, spark)
    assert result.rows == 2
    rows = predictions(lake)
    assert sorted(rows) == [0, 1, 3, 4, 5, 6]
    assert (rows[1]["number"], rows[1]["metadata"]["source_version"]) == (77, 4)
    assert predict_table(config, spark).batches == 0
    shutil.rmtree(lake / "predictions_checkpoint")
    assert predict_table(config, spark).rows == 0


def test_append_stops_at_changed_rows_and_not_at_optimize(lake: Path, spark: SparkSession) -> None:
    predict_table(digits_job(lake), spark)
    write_images(spark, lake / "images", 6, 1)
    change(spark, lake, "OPTIMIZE {images} ZORDER BY (number)")
    assert predict_table(digits_job(lake), spark).rows == 1
    change(spark, lake, "OPTIMIZE {images}")
    assert predict_table(digits_job(lake), spark).batches == 0
    # One MERGE that changes a row and adds one: neither is passed over.
    change(
        spark,
        lake,
        "MERGE INTO {images} t USING (SELECT 'img/0001.png' AS path UNION SELECT 'img/0009.png') s ON t.path = s.path "
        "WHEN MATCHED THEN UPDATE SET label = 'new' WHEN NOT MATCHED THEN INSERT (path) VALUES (s.path)",
    )
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\].*changes: upsert"):
        predict_table(digits_job(lake), spark)
    assert len(predictions(lake)) == 7


def test_files_that_were_vacuumed_unseen_stop_the_run(lake: Path, spark: SparkSession) -> None:
    predict_table(digits_job(lake), spark)
    write_images(spark, lake / "images", 6, 1)
    change(spark, lake, "OPTIMIZE {images}")
    parts = set((lake / "images").glob("*.parquet"))
    for file in parts - {Path(uri) for uri in DeltaTable(f"{lake}/images").file_uris()}:  # as VACUUM after 7 days
        file.unlink()
    with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\].*mode: missing"):
        predict_table(digits_job(lake), spark)
    assert predict_table(digits_job(lake, mode="missing"), spark).rows == 1
    assert len(predictions(lake)) == 7


def test_versions_that_left_the_log_unseen_stop_the_run(lake: Path, spark: SparkSession) -> None:
    predict_table(digits_job(lake), spark)
    for number in (6, 7, 8):
        write_images(spark, lake / "images", number, 1)
    DeltaTable(f"{lake}/images").create_checkpoint()
    for version in (0, 1, 2):  # as Delta's own clean-up does after 30 days
        (lake / f"images/_delta_log/{version:020}.json").unlink()
    with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\].*mode: missing"):
        predict_table(digits_job(lake), spark)
    assert predict_table(digits_job(lake, mode="missing"), spark).rows == 3
    assert predict_table(digits_job(lake), spark).rows == 0
    assert sorted(predictions(lake)) == list(range(9))
