"""A cascade as a job: what is learnt holds for both engines, few rows go on, and each row says who answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakemill import PredictConfig
from tests.both.on import On
from tests.lake import FORMAT_STEP, IMAGE_STEP, add_images, onnx_classifier

ROWS = 400


def job(lake: Path, **options: Any) -> PredictConfig:
    cascade = {"first": str(lake / "small.onnx"), "then": str(lake / "large.onnx"), "softmax": True} | options
    return PredictConfig.load(
        name="cascade",
        source={"table": f"{lake}/images", "columns": ["number"]},
        pipeline={"steps": [IMAGE_STEP, {"cascade": cascade}, FORMAT_STEP]},
        output={"table": f"{lake}/predictions"},
        engine={"batch_rows": 16},
    )


def rows_of(lake: Path, name: str = "predictions") -> list[dict[str, Any]]:
    return DeltaTable(lake / name).to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a folder with images in four files, of which one is broken, and two models of the same best classes."""
    for start in range(0, ROWS, 100):
        add_images(tmp_path / "images", start, 100, (2,))
    onnx_classifier(tmp_path / "small.onnx")
    onnx_classifier(tmp_path / "large.onnx", bias=100.0)
    return tmp_path


@pytest.mark.seam
def test_a_job_learns_its_threshold_once_and_counts_what_was_saved(lake: Path, on: On) -> None:
    lines: list[str] = []
    config = job(lake, target={"agreement": 0.9})
    assert on.predict(config, progress=lines.append).rows == ROWS
    assert any("the first model answers where its confidence is" in line for line in lines)
    tasks = rows_of(lake, "predictions_tasks")
    seen, then = (sum(task[name] for task in tasks) for name in ("cascade_rows", "cascade_rows_then"))
    assert (seen, any("of 399 rows" in line for line in lines)) == (ROWS - 1, True)
    answered = [row["metadata"]["models"][-1]["name"] for row in rows_of(lake) if row["error"] is None]
    assert answered.count("large") == then
    lines.clear()
    add_images(lake / "images", ROWS, 20)
    assert on.predict(config, progress=lines.append).rows == 20
    assert not any("where its confidence" in line for line in lines)  # it was kept


def test_only_rows_for_which_the_condition_does_not_hold_go_on(lake: Path, on: On) -> None:
    on.predict(job(lake, unless="out.confidence >= 0.45"))
    for row in rows_of(lake):
        if row["error"] is None:
            names = [model["name"] for model in row["metadata"]["models"]]
            assert names == (["small"] if row["out"]["probability"] >= 0.45 else ["small", "large"])
    tasks = rows_of(lake, "predictions_tasks")
    assert 0 < sum(task["cascade_rows_then"] for task in tasks) < sum(task["cascade_rows"] for task in tasks)


def test_a_target_that_no_threshold_keeps_sends_every_row_on(lake: Path, on: On) -> None:
    """400 rows do not show an agreement of 0.999 with confidence 0.95: 2,995 would."""
    lines: list[str] = []
    on.predict(job(lake, target={"agreement": 0.999}), progress=lines.append)
    assert "cascade: the first model answered 0 of 399 rows" in lines
    good = [row for row in rows_of(lake) if row["error"] is None]
    assert all([model["name"] for model in row["metadata"]["models"]] == ["small", "large"] for row in good)
