"""The demo end to end; what it leaves is read by an independent reader."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from deltalake import DeltaTable

from lakemill.demo.walk import DemoResult, run_demo

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLES = ("images", "images_quarantine", "photos", "predictions")


def read(demo: DemoResult, table: str) -> pd.DataFrame:
    return DeltaTable(demo.lake / table).to_pandas()


def files(demo: DemoResult, pattern: str) -> list[Path]:
    return sorted((demo.lake / "files").glob(pattern))


def test_every_usable_file_is_in_a_table_and_every_other_in_the_quarantine(demo: DemoResult) -> None:
    images, rejected = read(demo, "images"), read(demo, "images_quarantine")
    assert len(images) == demo.images == 1797
    assert images["label"].value_counts().between(170, 190).all()
    assert dict(zip(rejected["path"].str.rsplit("/", n=1).str[1], rejected["code"], strict=True)) == {
        "empty.png": "FILE_EMPTY",
        "truncated.png": "IMAGE_TRUNCATED",
        "notes.png": "IMAGE_UNKNOWN_FORMAT",
        "bomb.png": "IMAGE_TOO_MANY_PIXELS",
    }
    assert sorted((*images["path"], *rejected["path"])) == [str(path) for path in files(demo, "digits/*/*/*")]
    assert set(read(demo, "photos")["format"]) == {"JPEG"}


def test_every_test_digit_has_one_row_with_its_label_or_the_reason(demo: DemoResult) -> None:
    rows = read(demo, "predictions")
    assert sorted(rows["path"]) == [str(path) for path in files(demo, "digits/test/*/[0-9]*.png")]
    failed = rows[rows["error"].notna()]
    assert [error["stage"] for error in failed["error"]] == ["decode"]
    assert failed["out"].isna().all()
    scored = rows[rows["error"].isna()]
    accuracy = (scored["out"].str["label"] == scored["label"]).mean()
    assert accuracy == pytest.approx(demo.accuracy)
    assert accuracy >= 0.95
    assert scored["out"].str["probability"].between(0.1, 1).all()
    used = {(model["name"], model["version"]) for row in rows["metadata"] for model in row["models"]}
    assert used == {("digits", "1")}


def test_the_registered_pipeline_is_an_ordinary_mlflow_model(demo: DemoResult) -> None:
    from lakemill.pipelines.registry import mlflow_at

    some = files(demo, "digits/test/7/*.png")[:5]
    with mlflow_at(demo.registry) as mlflow:
        model = mlflow.pyfunc.load_model("models:/digits@production")
        result = model.predict(pd.DataFrame({"content": [path.read_bytes() for path in some]}))
    assert list(result["out.label"]) == ["7"] * 5


def test_the_report_tells_what_the_tables_hold(demo: DemoResult) -> None:
    page = demo.report.read_text(encoding="utf-8")
    assert f"{100 * demo.accuracy:.1f}\N{NARROW NO-BREAK SPACE}%" in page
    assert "IMAGE_TRUNCATED" in page
    assert page.count("data:image/png") > 40
    for part in ("sample", "confusion", "wrong", "unsure", "errors", "checks", "outputs", "time", "models"):
        assert f'<section id="{part}"' in page


def test_a_second_run_changes_nothing(demo: DemoResult, spark: SparkSession) -> None:
    def state() -> dict[str, int]:
        return {table: DeltaTable(demo.lake / table).version() for table in TABLES} | {
            str(path): path.stat().st_mtime_ns for path in files(demo, "**/*.png")
        }

    before, lines = state(), list[str]()
    started = time.monotonic()
    again = run_demo(demo.lake, spark, progress=lines.append)
    assert time.monotonic() - started < demo.seconds
    assert state() == before
    assert (again.rows_new, again.rows, again.model_version) == (0, demo.rows, demo.model_version)
    assert again.accuracy == demo.accuracy
    assert not any("training" in line for line in lines)


def test_the_summary_gives_commands_that_work_from_here(demo: DemoResult) -> None:
    summary = demo.summary()
    assert f"lakemill predict --config {demo.config} --limit 10" in summary
    assert f"--registry {demo.registry}" in summary
    assert demo.config.is_file()
    assert str(demo.report) in summary
