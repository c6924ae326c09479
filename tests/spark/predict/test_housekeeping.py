"""Looking after a job: its state, compaction, new outputs, rows that are the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deltalake import DeltaTable

from lakemill import PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.predict.job import preview
from lakemill.predict.redo import retry_errors, undo_run
from lakemill.predict.run import PredictResult
from lakemill.predict.status import job_status
from tests.lake import digits_job, image_rows, onnx_classifier, steps, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Yield a folder with 6 images, one of them broken, a model and a job."""
    write_images(spark, tmp_path / "images", 0, 6, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(tmp_path)))
    return tmp_path


def job(lake: Path) -> dict[str, Any]:
    return {
        "name": "digits",
        "source": {"table": f"{lake}/images", "columns": ["label"]},
        "pipeline": {"steps": steps(lake / "model.onnx")},
        "output": {"table": f"{lake}/predictions"},
    }


def config_of(lake: Path, *overrides: str) -> PredictConfig:
    return PredictConfig.load(lake / "job.yaml", overrides)


def predictions(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def command(lake: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run a command of the command line and return the facts it prints."""
    assert run([*arguments, "--config", f"{lake}/job.yaml", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_status_tells_lag_runs_and_errors(lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    result = predict_table(config_of(lake), spark)
    write_images(spark, lake / "images", 6, 2)
    spark.sql(f"OPTIMIZE delta.`{lake}/images`")
    facts = command(lake, capsys, "status")
    assert (facts["scored_version"], facts["source_version"], facts["lag_versions"], facts["lag_rows"]) == (0, 2, 2, 2)
    assert (facts["rows"], facts["rows_error"], facts["running"]) == (6, 1, None)
    assert facts["pipeline_versions"] == {result.pipeline_version: 6}
    assert [(one["run_id"], one["status"], one["rows"]) for one in facts["runs"]] == [(result.run_id, "done", 6)]


def test_retry_undo_and_reset_are_commands(lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    result = predict_table(config_of(lake), spark)
    assert command(lake, capsys, "retry")["rows_error"] == 1
    assert command(lake, capsys, "undo", result.run_id) == {"rows": 5}
    assert command(lake, capsys, "predict", "--reset", "--yes")["rows"] == 6
    assert len(predictions(lake)) == 6


def test_compaction_of_the_output_hinders_no_run(
    lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_table(config_of(lake), spark)
    write_images(spark, lake / "images", 6, 1)
    predict_table(config_of(lake), spark)
    facts = command(lake, capsys, "optimize")
    assert facts[f"{lake}/predictions"]["files_removed"] == 2
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    write_images(spark, lake / "images", 7, 1)
    assert predict_table(config_of(lake), spark).rows == 1
    assert len(predictions(lake)) == 8


def test_vacuum_leaves_what_time_travel_and_jobs_need(
    lake: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_table(config_of(lake), spark)
    left_by_a_crash = lake / "predictions" / "part-00000-of-no-commit.snappy.parquet"
    left_by_a_crash.write_bytes(b"PAR1")
    os.utime(left_by_a_crash, (time.time() - 8 * DAY_SECONDS,) * 2)
    write_images(spark, lake / "images", 6, 1)
    predict_table(config_of(lake), spark)
    command(lake, capsys, "optimize")
    facts = command(lake, capsys, "vacuum")
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    assert not left_by_a_crash.exists()
    earlier = DeltaTable(f"{lake}/predictions", version=1).to_pyarrow_table()
    assert len(earlier) == 6, "files of versions within the retention are there"
    write_images(spark, lake / "images", 7, 1)
    assert predict_table(config_of(lake), spark).rows == 1


@pytest.mark.parametrize(("answer", "rows"), [("n", 0), ("y", 6)])
def test_a_reset_asks_first(
    lake: Path,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    rows: int,
) -> None:
    first = predict_table(config_of(lake), spark)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    assert run(["predict", "--config", f"{lake}/job.yaml", "--reset"]) == (0 if rows else 1)
    assert "This deletes all predictions of the job 'digits'" in capsys.readouterr().err
    assert {row["metadata"]["run_id"] == first.run_id for row in predictions(lake)} == {not rows}


def test_tables_of_a_catalog_in_every_mode(tmp_path: Path, spark: SparkSession) -> None:
    spark.sql("CREATE DATABASE housekeeping")
    try:
        onnx_classifier(tmp_path / "model.onnx")
        spark.createDataFrame(image_rows(0, 4, broken=(1,))).write.format("delta").option(
            "delta.enableChangeDataFeed", "true"
        ).saveAsTable("housekeeping.images")
        places = {
            "source__table": "housekeeping.images",
            "output__table": "housekeeping.predictions",
            "output__checkpoint": f"{tmp_path}/checkpoint",
        }

        def score(*overrides: str) -> PredictResult:
            return predict_table(digits_job(tmp_path, *overrides, **places), spark)

        assert score("source.changes=upsert").rows == 4
        spark.sql("UPDATE housekeeping.images SET label = 'new' WHERE number < 2")
        assert score("source.changes=upsert").rows == 2
        assert score("mode=where", "source.where=label = 'new'").rows == 2
        assert score("mode=missing").batches == 0
        job = digits_job(tmp_path, **places)
        assert retry_errors(job, spark).rows_error == 1
        found = job_status(job, spark)
        assert (found.rows, found.rows_error) == (4, 1)
        assert undo_run(job, found.runs[0]["run_id"], spark) == 1
        assert score().rows == 1
        assert spark.table("housekeeping.predictions").select("path").distinct().count() == 4
    finally:
        spark.sql("DROP DATABASE housekeeping CASCADE")


def test_new_checks_and_outputs_are_added_to_the_output(lake: Path, spark: SparkSession) -> None:
    predict_table(config_of(lake), spark)
    unsure = 'pipeline.checks=[{name: unsure, expr: "out.probability < 2.0"}]'
    again = predict_table(config_of(lake, unsure, "mode=missing"), spark)
    assert again.rows == 6
    assert all(row["anomaly"]["unsure"] for row in predictions(lake) if row["error"] is None)
    write_images(spark, lake / "images", 6, 1)
    assert predict_table(config_of(lake), spark).rows == 1  # without the check: null there
    assert [row["anomaly"]["unsure"] for row in predictions(lake) if row["path"] == "img/0006.png"] == [None]


def test_the_same_content_is_scored_once_and_has_a_row_each(lake: Path, spark: SparkSession) -> None:
    copies = (
        spark.read.format("delta")
        .load(f"{lake}/images")
        .selectExpr(
            "concat('copy/', path) AS path", "modification_time", "concat(label, '-copy') AS label", "number", "content"
        )
    )
    copies.write.format("delta").mode("append").save(f"{lake}/images")
    result = predict_table(config_of(lake, "deduplicate=content"), spark)
    assert (result.rows, result.rows_error) == (12, 2)
    assert sum(task["rows"] for task in result.tasks) == 6
    rows = predictions(lake)
    copied, first = rows[:6], rows[6:]
    assert [row["label"] for row in copied] == [f"{row['label']}-copy" for row in first]
    assert [row["out"] for row in copied] == [row["out"] for row in first]
    assert len({row["path"] for row in rows}) == 12


@pytest.mark.parametrize("digest", [(), ("sha2(content, 256) AS sha256",)], ids=["computed", "of ingest"])
def test_content_that_an_earlier_commit_scored_is_not_scored_again(
    lake: Path, spark: SparkSession, digest: tuple[str, ...]
) -> None:
    images = spark.read.format("delta").load(f"{lake}/images").selectExpr("*", *digest)
    images.where("number < 3").write.format("delta").save(f"{lake}/some")
    some = f"source.table={lake}/some"
    job = config_of(lake, "deduplicate=content", some)
    assert preview(job, 3, spark)["out"].notna().any()
    before = predict_table(config_of(lake, some), spark)  # of these no digest is known
    images.where("number >= 3").write.format("delta").mode("append").save(f"{lake}/some")
    first = predict_table(job, spark)
    copies = images.selectExpr(
        "path || '-copy' AS path", "modification_time", "label || '-copy' AS label", "number", "content", *digest
    )
    copies.write.format("delta").mode("append").save(f"{lake}/some")
    second = predict_table(job, spark)
    assert [(run.rows, run.rows_error) for run in (before, first, second)] == [(3, 0), (3, 1), (6, 1)]
    # Those of the first run, and the broken one: an error may have been of the moment.
    assert sum(task["rows"] for task in second.tasks) == 4
    rows = predictions(lake)
    contents = {row["path"]: row["content"] for row in DeltaTable(f"{lake}/some").to_pyarrow_table().to_pylist()}
    for number, (original, copy) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
        assert copy["path"] == f"{original['path']}-copy"
        assert copy["label"] == f"{original['label']}-copy"
        assert copy["out"] == original["out"]
        assert copy["metadata"]["models"] == original["metadata"]["models"]
        assert (copy["metadata"]["run_id"], copy["metadata"]["source_version"]) == (second.run_id, 2)
        assert copy["metadata"]["input_sha256"] == hashlib.sha256(contents[copy["path"]]).hexdigest()
        known = None if number < 3 else copy["metadata"]["input_sha256"]
        assert original["metadata"]["input_sha256"] == known
    full = predict_table(config_of(lake, "deduplicate=content", some, "mode=full"), spark)
    assert full.rows == 12
    assert sum(task["rows"] for task in full.tasks) == 6
