"""The other ways through a source: a predicate, what is missing, errors again, a run undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError
from tests.both.on import On
from tests.lake import add_images, digits_job, onnx_classifier, png


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Yield a folder with 6 images, one of them broken, and a model."""
    add_images(tmp_path / "images", 0, 6, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def predictions(lake: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the predictions with the independent reader, by job and number of the image."""
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    found = {(row["metadata"]["job"], row["path"][4:8]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_where_replaces_the_predictions_of_a_predicate_and_no_others(lake: Path, on: On) -> None:
    first = on.predict(digits_job(lake))
    other = on.predict(digits_job(lake, name="other"))
    # Row 1 comes to the predicate, row 3 leaves the source.
    table = DeltaTable(lake / "images")
    table.update(predicate="number = 1", updates={"label": "'0'"})
    table.delete("number = 3")
    where = on.predict(digits_job(lake, "source.where=label = '0'", mode="where"))
    assert (where.rows, where.mode, where.source_version) == (2, "where", 2)
    rows = predictions(lake)
    mine = {number: row["metadata"]["run_id"] for (job, number), row in rows.items() if job == "digits"}
    assert mine == {"0000": where.run_id, "0001": where.run_id} | dict.fromkeys(("0002", "0004", "0005"), first.run_id)
    assert [row["metadata"]["run_id"] for (job, _), row in rows.items() if job == "other"] == [other.run_id] * 6
    # It says nothing of the rest, which changed too, nor does `missing`; `full` lets the job go on.
    add_images(lake / "images", 6, 1)
    said: list[str] = []
    assert on.predict(digits_job(lake, mode="missing"), progress=said.append).rows == 1
    assert any(
        "version 1 of the source changed or deleted rows: predictions of what was there" in line for line in said
    )
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\]"):
        on.predict(digits_job(lake))
    assert on.predict(digits_job(lake, mode="full")).rows == 6
    add_images(lake / "images", 7, 1)
    assert on.predict(digits_job(lake)).rows == 1


def test_where_needs_carried_columns(lake: Path, on: On) -> None:
    with pytest.raises(LakemillError, match=r"^\[WHERE_NOT_CARRIED\].* \(path, label\)"):
        on.predict(digits_job(lake, "source.where=number > 3", mode="where"))
    with pytest.raises(LakemillError, match=r"^\[CONFIG_INVALID\].*mode: where needs source.where"):
        digits_job(lake, mode="where")


def test_missing_scores_what_lacks_a_prediction_of_this_version(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    add_images(lake / "images", 6, 2)
    assert on.predict(digits_job(lake, mode="missing")).rows == 2
    onnx_classifier(lake / "model.onnx", bias=1.0)
    add_images(lake / "images", 8, 1)
    newer = on.predict(digits_job(lake, mode="missing"))
    assert newer.rows == 9
    assert {row["metadata"]["pipeline_version"] for row in predictions(lake).values()} == {newer.pipeline_version}
    version = DeltaTable(f"{lake}/predictions").version()
    assert on.predict(digits_job(lake, mode="missing")).batches == 0
    assert on.predict(digits_job(lake)).rows == 0
    assert DeltaTable(f"{lake}/predictions").version() == version


def test_retry_scores_the_rows_with_errors_again(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    DeltaTable(lake / "images").update(predicate="number = 4", updates={"content": f"X'{png(4).hex()}'"})
    again = on.retry(digits_job(lake))
    assert (again.rows, again.rows_error, again.mode) == (1, 0, "retry")
    rows = predictions(lake)
    assert rows["digits", "0004"]["metadata"]["run_id"] == again.run_id
    assert (len(rows), [row["error"] for row in rows.values()]) == (6, [None] * 6)
    assert on.retry(digits_job(lake)).batches == 0


def test_undo_and_reset_let_the_next_run_score_again(lake: Path, on: On) -> None:
    first = on.predict(digits_job(lake))
    add_images(lake / "images", 6, 2)
    second = on.predict(digits_job(lake))
    assert on.undo(digits_job(lake), second.run_id) == 2
    assert {row["metadata"]["run_id"] for row in predictions(lake).values()} == {first.run_id}
    with pytest.raises(LakemillError, match=r"^\[RUN_UNKNOWN\]"):
        on.undo(digits_job(lake), second.run_id)
    assert on.predict(digits_job(lake)).rows == 2
    assert on.reset(digits_job(lake)) == 8
    assert on.predict(digits_job(lake)).rows == 8
    assert len(predictions(lake)) == 8
