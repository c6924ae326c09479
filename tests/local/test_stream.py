"""Streams on the local engine: polling, with the same lines, stops and models that change as on Spark."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig, predict_stream
from tests.lake import FORMAT_STEP, image_rows, onnx_classifier, png
from tests.streams import ABOVE, log_model, rows_of, run_until_stopped, stream_config


def local(lake: Path, **values: Any) -> PredictConfig:
    return stream_config(lake, engine__name="local", **values)


def add(lake: Path, start: int, count: int, broken: tuple[int, ...] = ()) -> None:
    write_deltalake(lake / "images", image_rows(start, count, broken), mode="append")


def test_a_stream_scores_each_row_once_stops_after_its_batch_and_goes_on(tmp_path: Path) -> None:
    add(tmp_path, 0, 6, broken=(3,))
    onnx_classifier(tmp_path / "model.onnx")
    handler = signal.getsignal(signal.SIGTERM)
    lines = run_until_stopped(local(tmp_path), None, lambda: add(tmp_path, 6, 4))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "engine: local, as the job says" in lines
    assert [row["path"] for row in rows_of(tmp_path)] == [f"img/{number:04d}.png" for number in range(10)]
    assert [row["metadata"]["source_version"] for row in rows_of(tmp_path)] == [0] * 6 + [1] * 4
    second = next(line for line in lines if line.startswith("batch 1:"))
    assert re.search(
        r"committed 4 rows, 0 with errors, .* rows/s, behind 0 rows, 0.0 s, commit to commit p50 [\d.]+ s, p99 ", second
    )
    add(tmp_path, 10, 2)
    again: list[str] = []
    result = predict_stream(local(tmp_path, trigger="available_now"), progress=again.append)
    assert (result.rows, len(rows_of(tmp_path))) == (2, 12)
    assert not [line for line in again if "already" in line], "the stopped stream had finished its last batch"


def test_a_new_model_is_used_from_the_next_batch_on(tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    log_model(tmp_path, registry, FORMAT_STEP, bias=0.0)
    add(tmp_path, 0, 3)

    def second() -> None:
        log_model(tmp_path, registry, FORMAT_STEP, ABOVE, bias=1.0)
        add(tmp_path, 3, 2)

    config = local(tmp_path, pipeline__uri="models:/live@production", registry=registry)
    run_until_stopped(config, None, second)
    assert [row["metadata"]["models"][0]["version"] for row in rows_of(tmp_path)] == ["1"] * 3 + ["2"] * 2


def test_files_to_predictions_in_one_process(tmp_path: Path) -> None:
    onnx_classifier(tmp_path / "model.onnx")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "0.png").write_bytes(png(0))
    ingest = {"source": {"path": f"{tmp_path}/files"}, "output": {"table": f"{tmp_path}/images"}}
    config = local(tmp_path, ingest=ingest)
    run_until_stopped(config, None, lambda: (tmp_path / "files" / "1.png").write_bytes(png(1)))
    assert [Path(row["path"]).name for row in rows_of(tmp_path)] == ["0.png", "1.png"]


def test_upkeep_of_what_a_job_writes(tmp_path: Path) -> None:
    from lakemill.predict.upkeep import job_tables, optimize_tables, vacuum_tables

    onnx_classifier(tmp_path / "model.onnx")
    config = local(tmp_path, trigger="available_now")
    for start in (0, 2):
        add(tmp_path, start, 2)
        predict_stream(config)
    files = len(DeltaTable(tmp_path / "predictions").file_uris())
    done = optimize_tables(job_tables(config))
    assert done[f"{tmp_path}/predictions"]["files_removed"] == files == 2
    assert vacuum_tables([f"{tmp_path}/predictions"])[f"{tmp_path}/predictions"]["version"] >= 3
    assert predict_stream(config).batches == 0, "compaction is no change"
    assert len(rows_of(tmp_path)) == 4
