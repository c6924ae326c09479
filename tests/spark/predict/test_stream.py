"""Streams: the same rows as a batch job, stopped and started again, with models that change meanwhile."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from lakemill import ConfigError, Pipeline, predict_stream
from lakemill.engines.delta_log import DeltaLog
from tests.lake import FORMAT_STEP, onnx_classifier, png, write_images
from tests.streams import ABOVE, Lines, log_model, rows_of, run_until_stopped, stream_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_stream_scores_each_row_once_stops_after_its_batch_and_goes_on(tmp_path: Path, spark: SparkSession) -> None:
    write_images(spark, tmp_path / "images", 0, 6, broken=(3,))
    onnx_classifier(tmp_path / "model.onnx")
    handler = signal.getsignal(signal.SIGTERM)
    lines = run_until_stopped(stream_config(tmp_path), spark, lambda: write_images(spark, tmp_path / "images", 6, 4))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert [row["path"] for row in rows_of(tmp_path)] == [f"img/{number:04d}.png" for number in range(10)]
    assert [row["metadata"]["source_version"] for row in rows_of(tmp_path)] == [0] * 6 + [1] * 4
    second = next(line for line in lines if line.startswith("batch 1:"))
    assert re.search(
        r"committed 4 rows, 0 with errors, .* rows/s, behind 0 rows, 0.0 s, commit to commit p50 [\d.]+ s, p99 ", second
    )
    again: Lines = []
    write_images(spark, tmp_path / "images", 10, 2)
    result = predict_stream(stream_config(tmp_path, trigger="available_now"), spark, progress=again.append)
    assert (result.rows, len(rows_of(tmp_path))) == (2, 12)
    assert not [line for line in again if "already" in line], "the stopped stream had finished its last batch"
    runs = DeltaTable(f"{tmp_path}/predictions_runs").to_pyarrow_table().to_pylist()
    assert sorted((run["rows"], run["rows_error"], run["batches"]) for run in runs) == [(2, 0, 1), (10, 1, 2)]


def test_a_new_model_is_used_from_the_next_batch_on_and_a_bad_one_is_not(tmp_path: Path, spark: SparkSession) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    log_model(tmp_path, registry, FORMAT_STEP, bias=0.0)
    write_images(spark, tmp_path / "images", 0, 3)

    def second() -> None:
        log_model(tmp_path, registry, FORMAT_STEP, ABOVE, bias=1.0)
        write_images(spark, tmp_path / "images", 3, 2)

    def third() -> None:
        log_model(tmp_path, registry, bias=2.0)  # logits, where label and probability were
        write_images(spark, tmp_path / "images", 5, 2)

    config = stream_config(tmp_path, pipeline__uri="models:/live@production", registry=registry)
    lines = run_until_stopped(config, spark, second, third)
    versions = [row["metadata"]["models"][0]["version"] for row in rows_of(tmp_path)]
    assert versions == ["1"] * 3 + ["2"] * 4
    assert len({row["metadata"]["pipeline_version"] for row in rows_of(tmp_path)}) == 2
    assert [row["out"]["above"] is None for row in rows_of(tmp_path)] == [True] * 3 + [False] * 4
    refused = [line for line in lines if "is not used" in line]
    assert len(refused) == 1
    assert "models:/live@production (version 3)" in refused[0]
    assert "out.label is gone" in refused[0]
    runs = DeltaTable(f"{tmp_path}/predictions_runs").to_pyarrow_table().to_pylist()
    assert "OUTPUT_SCHEMA" in {run["code"] for run in runs}


@pytest.mark.matrix  # tests/local has its like
def test_files_to_predictions_in_one_process(tmp_path: Path, spark: SparkSession) -> None:
    onnx_classifier(tmp_path / "model.onnx")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "0.png").write_bytes(png(0))
    config = stream_config(
        tmp_path, ingest={"source": {"path": f"{tmp_path}/files"}, "output": {"table": f"{tmp_path}/images"}}
    )
    run_until_stopped(config, spark, lambda: (tmp_path / "files" / "1.png").write_bytes(png(1)))
    assert [Path(row["path"]).name for row in rows_of(tmp_path)] == ["0.png", "1.png"]


def test_transform_in_a_stream_of_the_users_own(tmp_path: Path, spark: SparkSession) -> None:
    write_images(spark, tmp_path / "images", 0, 4)
    onnx_classifier(tmp_path / "model.onnx")
    declared = stream_config(tmp_path).pipeline.declared()
    images = spark.readStream.format("delta").load(f"{tmp_path}/images")
    query = (
        Pipeline(declared.steps)
        .transform(images)
        .writeStream.format("delta")
        .option("checkpointLocation", f"{tmp_path}/own_checkpoint")
        .trigger(availableNow=True)
        .start(f"{tmp_path}/predictions")
    )
    query.awaitTermination()
    assert [row["error"] for row in rows_of(tmp_path)] == [None] * 4


def test_the_source_log_says_when_and_how_much(tmp_path: Path, spark: SparkSession) -> None:
    write_images(spark, tmp_path / "images", 0, 3)
    write_images(spark, tmp_path / "images", 3, 2)
    spark.sql(f"OPTIMIZE delta.`{tmp_path}/images`")
    log = DeltaLog(f"{tmp_path}/images")
    history = DeltaTable(f"{tmp_path}/images").history()
    assert [(commit.version, commit.rows) for commit in log.after(-1)] == [(0, 3), (1, 2), (2, 0)]
    newest_first = [commit["timestamp"] / 1000 for commit in history]
    assert [commit.time_seconds for commit in log.after(-1)] == newest_first[::-1]
    assert list(log.after(2)) == []


def test_a_stream_is_incremental(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[STREAM_MODE\]"):
        predict_stream(stream_config(tmp_path, mode="full"))
