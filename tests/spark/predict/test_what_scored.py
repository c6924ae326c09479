"""What scored a row is what its row says: the code's digest and the model's sha256, or the run stops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import PredictConfig, predict_table
from tests.lake import write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def job(lake: Path, pipeline: list[dict[str, Any]], **more: Any) -> PredictConfig:
    source = {"table": f"{lake}/images", "key": ["path"]}
    return PredictConfig.load(
        name="scored", source=source, pipeline={"steps": pipeline}, output={"table": f"{lake}/predictions"}, **more
    )


def rows_of(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def test_edited_code_is_another_version_that_missing_finds(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
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
    write_images(spark, tmp_path / "images", 0, 3)
    predict_table(job(tmp_path, pipeline), spark)
    write(1000)
    assert predict_table(job(tmp_path, pipeline, mode="missing"), spark).rows == 3
    rows = rows_of(tmp_path)
    newest = {row["metadata"]["pipeline_version"] for row in rows if row["out"]["scaled"] in (1000, 2000)}
    oldest = {row["metadata"]["pipeline_version"] for row in rows if row["out"]["scaled"] in (2, 4)}
    assert len(newest) == 1
    assert newest.isdisjoint(oldest)
