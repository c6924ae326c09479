"""What scored a row is what its row says: the code's digest and the model's sha256, or the run stops."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig
from tests.both.on import On
from tests.lake import add_images, onnx_classifier, steps


def job(lake: Path, pipeline: list[dict[str, Any]], **more: Any) -> PredictConfig:
    source = {"table": f"{lake}/images", "key": ["path"]}
    return PredictConfig.load(
        name="scored", source=source, pipeline={"steps": pipeline}, output={"table": f"{lake}/predictions"}, **more
    )


def rows_of(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def test_a_model_that_is_replaced_while_the_job_runs_scores_nothing(tmp_path: Path, on: On) -> None:
    add_images(tmp_path / "images", 0, 3)
    # weights of its own: a worker that already holds this very model would score with it, rightly
    model = onnx_classifier(tmp_path / "model.onnx", bias=4.125)
    onnx_classifier(tmp_path / "new.onnx", bias=5)

    def replace(line: str) -> None:
        if (tmp_path / "new.onnx").exists() and line.startswith("pipeline"):
            os.replace(tmp_path / "new.onnx", model)  # noqa: PTH105 -- as a training job does it

    with pytest.raises(LakemillError, match=r"^\[MODEL_CHANGED\] .* were replaced while the job ran"):
        on.predict(job(tmp_path, steps(model)), progress=replace)
    assert not (tmp_path / "new.onnx").exists(), "the test replaced the model"
    assert not DeltaTable.is_deltatable(f"{tmp_path}/predictions") or not rows_of(tmp_path)


def test_edited_code_is_another_version_that_missing_finds(
    tmp_path: Path, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = tmp_path / "edited_steps.py"
    pipeline = [
        {
            "python": {
                "function": "edited_steps:scale",
                "inputs": {"number": "number"},
                "outputs": {"scaled": {"dtype": "int64"}},
            }
        }
    ]

    def write(factor: int) -> None:
        code.write_text(f"def scale(number):\n    return {{'scaled': number * {factor}}}\n")

    write(2)
    add_images(tmp_path / "images", 0, 3)
    on.predict(job(tmp_path, pipeline))
    write(1000)
    assert on.predict(job(tmp_path, pipeline, mode="missing")).rows == 3
    rows = rows_of(tmp_path)
    newest = {row["metadata"]["pipeline_version"] for row in rows if row["out"]["scaled"] in (1000, 2000)}
    oldest = {row["metadata"]["pipeline_version"] for row in rows if row["out"]["scaled"] in (2, 4)}
    assert len(newest) == 1
    assert newest.isdisjoint(oldest)
