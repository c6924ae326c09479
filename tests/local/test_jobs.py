"""Predict jobs on the local engine: what a mode means is the same, and no Java starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.predict.redo import reset_job, retry_errors, undo_run
from lakemill.predict.status import job_status
from tests.lake import digits_job, image_rows, onnx_classifier


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a folder with 4 images, of which one is broken, and a model."""
    add(tmp_path, 0, 4, broken=(2,))
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def add(lake: Path, start: int, count: int, broken: tuple[int, ...] = ()) -> None:
    write_deltalake(
        lake / "images",
        image_rows(start, count, broken),
        mode="append",
        configuration={"delta.enableChangeDataFeed": "true"},
    )


def local(lake: Path, *overrides: str, **options: Any) -> PredictConfig:
    return digits_job(lake, "engine.name=local", *overrides, **options)


def rows(lake: Path) -> list[dict[str, Any]]:
    found = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: str(row["path"]))


def test_incremental_runs_score_what_is_new_once(lake: Path) -> None:
    first = predict_table(local(lake))
    assert (first.rows, first.rows_error, first.batches) == (4, 1, 1)
    assert predict_table(local(lake)).batches == 0
    add(lake, 4, 3)
    assert predict_table(local(lake)).rows == 3
    found = rows(lake)
    assert [row["path"] for row in found] == [f"img/{number:04d}.png" for number in range(7)]
    assert [row["error"]["stage"] for row in found if row["error"]] == ["decode"]
    assert {row["metadata"]["job"] for row in found} == {"digits"}
    runs = DeltaTable(lake / "predictions_runs").to_pyarrow_table().to_pylist()
    assert sorted(run["rows"] for run in runs) == [3, 4]


def test_the_other_modes(lake: Path) -> None:
    predict_table(local(lake))
    add(lake, 4, 2)
    assert predict_table(local(lake, mode="missing")).rows == 2
    assert predict_table(local(lake, mode="where", source__where="label = '1'")).rows == 2
    assert predict_table(local(lake, mode="full")).rows == 6
    assert len(rows(lake)) == 6


def test_retry_undo_status_and_reset(lake: Path) -> None:
    run = predict_table(local(lake))
    assert retry_errors(local(lake)).rows == 1
    status = job_status(local(lake))
    assert (status.rows, status.rows_error, status.lag_versions) == (4, 1, 0)
    assert undo_run(local(lake), run.run_id) == 3
    assert predict_table(local(lake)).rows == 3
    assert reset_job(local(lake)) == 4
    assert rows(lake) == []


def test_a_job_s_own_rows_and_foreign_tables(lake: Path) -> None:
    predict_table(local(lake, name="one"))
    predict_table(local(lake, name="two", mode="full"))
    predict_table(local(lake, name="two", mode="full"))
    assert len(rows(lake)) == 8
    write_deltalake(lake / "foreign", image_rows(0, 2))
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_NOT_OURS\]"):
        predict_table(local(lake, mode="full", output__table=f"{lake}/foreign"))
    assert DeltaTable(lake / "foreign").version() == 0


def test_upserts_follow_the_change_feed(lake: Path) -> None:
    config = local(lake, source__changes="upsert")
    predict_table(config)
    table = DeltaTable(lake / "images")
    table.delete("number = 1")
    add(lake, 9, 1)
    predict_table(config)
    assert [row["path"] for row in rows(lake)] == [f"img/{number:04d}.png" for number in (0, 2, 3, 9)]


def test_no_java_and_no_spark(lake: Path) -> None:
    text = local(lake).model_dump_json()
    script = (
        "import sys\nfrom lakemill import PredictConfig, predict_table\n"
        "print(predict_table(PredictConfig.model_validate_json(sys.stdin.read())).rows)\n"
        "assert 'pyspark' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
