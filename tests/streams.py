"""Streams that tests run until they have seen enough, and the registered pipelines that these score with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable

from lakemill import Pipeline, PredictConfig, predict_stream
from tests.lake import IMAGE_STEP, onnx_classifier, steps

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Lines = list[str]


def stream_config(lake: Path, **values: Any) -> PredictConfig:
    if "pipeline__uri" not in values:
        values = {"pipeline__steps": steps(lake / "model.onnx")} | values
    return PredictConfig.load(
        None,
        (),
        name="live",
        source__table=f"{lake}/images",
        output__table=f"{lake}/predictions",
        **{"trigger": "1 second"} | values,
    )


def rows_of(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def run_until_stopped(config: PredictConfig, spark: SparkSession | None, *after_batch: Callable[[], object]) -> Lines:
    """Run a stream; after each of its batches do the next thing, and after the last of them send SIGTERM."""
    lines: Lines = []

    def progress(line: str) -> None:
        lines.append(line)
        done = sum(": committed " in said for said in lines)
        if ": committed " in line and done <= len(after_batch):
            after_batch[done - 1]()
        if ": committed " in line and done > len(after_batch):
            os.kill(os.getpid(), signal.SIGTERM)

    predict_stream(config, spark, progress=progress)
    return lines


ABOVE = {"format": {"input": "logits", "threshold": 0.0}}


def log_model(lake: Path, registry: str, *formats: dict[str, object], bias: float) -> None:
    """Register a version of the pipeline and move the alias to it."""
    onnx_classifier(lake / "model.onnx", bias=bias)
    parts = [IMAGE_STEP, {"model": {"uri": str(lake / "model.onnx")}}, *formats]
    declared = stream_config(lake, pipeline__steps=parts).pipeline.declared()
    Pipeline(declared.steps).log(registered_model_name="live", alias="production", registry=registry)
