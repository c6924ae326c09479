"""The other ways through a source: a predicate, what is missing, errors again, a run undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, predict_table
from lakemill.predict.redo import reset_job, retry_errors, undo_run
from tests.lake import digits_job, onnx_classifier, png, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 6 images, one of them broken, and a model."""
    write_images(spark, tmp_path / "images", 0, 6, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def predictions(lake: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the predictions with the independent reader, by job and number of the image."""
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    found = {(row["metadata"]["job"], row["path"][4:8]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_where_replaces_the_predictions_of_a_predicate_and_no_others(lake: Path, spark: SparkSession) -> None:
    first = predict_table(digits_job(lake), spark)
    other = predict_table(digits_job(lake, name="other"), spark)
    # Row 1 comes to the predicate, row 3 leaves the source.
    spark.sql(f"UPDATE delta.`{lake}/images` SET label = '0' WHERE number = 1")  # noqa: S608
    spark.sql(f"DELETE FROM delta.`{lake}/images` WHERE number = 3")  # noqa: S608
    where = predict_table(digits_job(lake, "source.where=label = '0'", mode="where"), spark)
    assert (where.rows, where.mode, where.source_version) == (2, "where", 2)
    rows = predictions(lake)
    mine = {number: row["metadata"]["run_id"] for (job, number), row in rows.items() if job == "digits"}
    assert mine == {"0000": where.run_id, "0001": where.run_id} | dict.fromkeys(("0002", "0004", "0005"), first.run_id)
    assert [row["metadata"]["run_id"] for (job, _), row in rows.items() if job == "other"] == [other.run_id] * 6
    # It says nothing of the rest, which changed too; a mode that does lets the job go on, and doubles nothing.
    write_images(spark, lake / "images", 6, 1)
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\]"):
        predict_table(digits_job(lake), spark)
    assert predict_table(digits_job(lake, mode="missing"), spark).rows == 1
    write_images(spark, lake / "images", 7, 1)
    assert predict_table(digits_job(lake), spark).rows == 1


def test_where_needs_carried_columns(lake: Path, spark: SparkSession) -> None:
    with pytest.raises(LakemillError, match=r"^\[WHERE_NOT_CARRIED\].* \(path, label\)"):
        predict_table(digits_job(lake, "source.where=number > 3", mode="where"), spark)
    with pytest.raises(LakemillError, match=r"^\[CONFIG_INVALID\].*mode: where needs source.where"):
        digits_job(lake, mode="where")


def test_missing_scores_what_lacks_a_prediction_of_this_version(lake: Path, spark: SparkSession) -> None:
    predict_table(digits_job(lake), spark)
    write_images(spark, lake / "images", 6, 2)
    assert predict_table(digits_job(lake, mode="missing"), spark).rows == 2
    onnx_classifier(lake / "model.onnx", bias=1.0)
    write_images(spark, lake / "images", 8, 1)
    newer = predict_table(digits_job(lake, mode="missing"), spark)
    assert newer.rows == 9
    assert {row["metadata"]["pipeline_version"] for row in predictions(lake).values()} == {newer.pipeline_version}
    version = DeltaTable(f"{lake}/predictions").version()
    assert predict_table(digits_job(lake, mode="missing"), spark).batches == 0
    assert predict_table(digits_job(lake), spark).rows == 0
    assert DeltaTable(f"{lake}/predictions").version() == version


def test_retry_scores_the_rows_with_errors_again(lake: Path, spark: SparkSession) -> None:
    predict_table(digits_job(lake), spark)
    good = png(4).hex()
    spark.sql(f"UPDATE delta.`{lake}/images` SET content = X'{good}' WHERE number = 4")  # noqa: S608
    again = retry_errors(digits_job(lake), spark)
    assert (again.rows, again.rows_error, again.mode) == (1, 0, "retry")
    rows = predictions(lake)
    assert rows["digits", "0004"]["metadata"]["run_id"] == again.run_id
    assert (len(rows), [row["error"] for row in rows.values()]) == (6, [None] * 6)
    assert retry_errors(digits_job(lake), spark).batches == 0


def test_undo_and_reset_let_the_next_run_score_again(lake: Path, spark: SparkSession) -> None:
    first = predict_table(digits_job(lake), spark)
    write_images(spark, lake / "images", 6, 2)
    second = predict_table(digits_job(lake), spark)
    assert undo_run(digits_job(lake), second.run_id, spark) == 2
    assert {row["metadata"]["run_id"] for row in predictions(lake).values()} == {first.run_id}
    with pytest.raises(LakemillError, match=r"^\[RUN_UNKNOWN\]"):
        undo_run(digits_job(lake), second.run_id, spark)
    assert predict_table(digits_job(lake), spark).rows == 2
    assert reset_job(digits_job(lake), spark) == 8
    assert predict_table(digits_job(lake), spark).rows == 8
    assert len(predictions(lake)) == 8
