"""Delta to Delta: one row for each source row, once, with its result or the reason why there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import LakemillError
from tests.both.on import On
from tests.lake import add_images, digits_job, onnx_classifier, png


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Yield a folder with 20 images, two of them broken, and a model."""
    add_images(tmp_path / "images", 0, 20, broken=(3, 7))
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def predictions(lake: Path, table: str = "predictions") -> list[dict[str, Any]]:
    """Read a table with the independent reader."""
    rows: list[dict[str, Any]] = DeltaTable(str(lake / table)).to_pyarrow_table().sort_by("path").to_pylist()
    return rows


@pytest.mark.seam
def test_one_row_for_each_source_row_and_errors_say_why(lake: Path, on: On) -> None:
    result = on.predict(digits_job(lake))
    rows = predictions(lake)
    assert (result.rows, result.rows_error, result.batches) == (20, 2, 1)
    assert [row["path"] for row in rows] == [f"img/{number:04d}.png" for number in range(20)]
    bad = [row for row in rows if row["error"]]
    assert [row["path"] for row in bad] == ["img/0003.png", "img/0007.png"]
    assert {(row["error"]["stage"], row["error"]["code"]) for row in bad} == {("decode", "IMAGE_TRUNCATED")}
    assert all(row["out"] is None for row in bad)
    good = next(row for row in rows if not row["error"])
    assert good["out"]["label"] in {"a", "b", "c"}
    assert 0 < good["out"]["probability"] <= 1
    assert good["label"] == "0"
    metadata = good["metadata"]
    assert (metadata["job"], metadata["run_id"], metadata["batch_id"], metadata["source_version"]) == (
        "digits",
        result.run_id,
        0,
        0,
    )
    assert metadata["models"][0]["name"] == "model"
    assert len(metadata["models"][0]["sha256"]) == 64
    assert len(metadata["elapsed_ns"]) == 3


def test_a_path_is_opened_only_below_the_roots_of_the_job(lake: Path, on: On) -> None:
    """Whatever a stranger's row names; a row that may be read is."""
    photo = lake / "photos/good.png"
    photo.parent.mkdir()
    photo.write_bytes(png(1))
    paths = [str(photo), "/etc/passwd", "s3://bucket?endpoint_override=host:80&scheme=http/a.png"]
    rows = [{"path": path, "label": "0", "content": None} for path in paths]
    schema = pa.schema([("path", pa.string()), ("label", pa.string()), ("content", pa.binary())])
    write_deltalake(str(lake / "named"), pa.Table.from_pylist(rows, schema))
    expected = {paths[0]: None, paths[1]: "PATH_NOT_ALLOWED", paths[2]: "PATH_NOT_ALLOWED"}
    for roots, codes in (([f"{lake}/photos"], expected), ([], dict.fromkeys(paths, "PATH_NOT_ALLOWED"))):
        options = {"source": {"table": str(lake / "named"), "columns": ["label"]}, "mode": "full"}
        on.predict(digits_job(lake, **options, limits={"allowed_roots": roots}))
        assert {row["path"]: row["error"] and row["error"]["code"] for row in predictions(lake)} == codes


def test_a_second_run_scores_only_what_is_new(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    again = on.predict(digits_job(lake))
    assert (again.rows, again.batches) == (0, 0)
    add_images(lake / "images", 20, 5)
    assert on.predict(digits_job(lake)).rows == 5
    rows = predictions(lake)
    assert len({row["path"] for row in rows}) == len(rows) == 25
    assert {row["metadata"]["source_version"] for row in rows} == {0, 1}


def test_full_replaces_everything_and_the_next_incremental_run_doubles_nothing(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    full = on.predict(digits_job(lake, mode="full"))
    assert full.rows == 20
    assert {row["metadata"]["run_id"] for row in predictions(lake)} == {full.run_id}
    add_images(lake / "images", 20, 2)
    assert on.predict(digits_job(lake)).rows == 2
    assert len(predictions(lake)) == 22


def test_the_first_incremental_run_after_a_full_one_reads_no_row(lake: Path, on: On) -> None:
    """It costs what any run with nothing new costs: the logs are read, nothing is compared."""
    on.predict(digits_job(lake, mode="full"))
    for table in ("images", "predictions"):
        for file in (lake / table).rglob("*.parquet"):
            file.unlink()
    told: list[str] = []
    again = on.predict(digits_job(lake), progress=told.append)
    assert (again.rows, again.batches) == (0, 0)
    assert not any("say how far" in line for line in told)


def test_a_lost_checkpoint_scores_nothing_twice(lake: Path, on: On) -> None:
    import shutil

    on.predict(digits_job(lake))
    shutil.rmtree(lake / "predictions_checkpoint")
    add_images(lake / "images", 20, 1)
    assert on.predict(digits_job(lake)).rows == 1
    assert len(predictions(lake)) == 21


def test_where_and_time_travel(lake: Path, on: On) -> None:
    add_images(lake / "images", 20, 10)
    result = on.predict(digits_job(lake, "source.where=number >= 18", "source.version=0", mode="full"))
    assert (result.rows, result.source_version) == (2, 0)


def test_too_many_errors_commit_nothing(lake: Path, on: On) -> None:
    with pytest.raises(LakemillError, match=r"^\[TOO_MANY_ERRORS\] 2 of 20 rows have errors \(10.0%\)") as caught:
        on.predict(digits_job(lake, "quarantine.max_ratio=0.05"))
    assert caught.value.exit_code == 3
    assert predictions(lake) == []
    assert on.predict(digits_job(lake, "quarantine.max_ratio=0.1")).rows == 20


@pytest.mark.seam
def test_error_rows_are_copied_to_the_quarantine_table(lake: Path, on: On) -> None:
    on.predict(digits_job(lake, f"quarantine.table={lake}/bad"))
    assert [row["path"] for row in predictions(lake, "bad")] == ["img/0003.png", "img/0007.png"]


def test_predictions_that_were_removed_are_made_again(lake: Path, on: On) -> None:
    said: list[str] = []
    assert on.predict(digits_job(lake)).rows == 20
    assert on.predict(digits_job(lake)).batches == 0
    shutil.rmtree(lake / "predictions")
    assert on.predict(digits_job(lake), progress=said.append).rows == 20
    assert "the predictions that the checkpoint was made with are gone: it starts anew" in said
    assert len(predictions(lake)) == 20


def test_changed_source_stops_with_a_hint(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    DeltaTable(lake / "images").delete("number = 5")
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\].*mode: full"):
        on.predict(digits_job(lake))
    assert on.predict(digits_job(lake, mode="full")).rows == 19


def test_a_changed_where_is_refused_for_an_existing_checkpoint(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_OTHER_JOB\].*where"):
        on.predict(digits_job(lake, "source.where=number > 3"))


def test_preview_touches_neither_table_nor_checkpoint(lake: Path, on: On) -> None:
    frame = on.preview(digits_job(lake), 5)
    assert len(frame) == 5
    assert not (lake / "predictions").exists()
    assert not (lake / "predictions_checkpoint").exists()


def test_run_and_task_tables_hold_seconds_per_stage(lake: Path, on: On) -> None:
    result = on.predict(digits_job(lake))
    run = DeltaTable(str(lake / "predictions_runs")).to_pyarrow_table().to_pylist()[0]
    assert (run["run_id"], run["rows"], run["rows_error"], run["status"]) == (result.run_id, 20, 2, "done")
    assert all(run[f"{stage}_seconds"] >= 0 for stage in ("scan_wait", "decode", "preprocess", "predict", "format"))
    tasks = DeltaTable(str(lake / "predictions_tasks")).to_pyarrow_table().to_pylist()
    assert sum(task["rows"] for task in tasks) == 20
    assert all(task["peak_memory_bytes"] > 0 for task in tasks)
