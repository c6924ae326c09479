"""Several models at once give the same on Spark, on the local engine and in-process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakemill import Pipeline, PredictConfig, predict_table
from tests.lake import FORMAT_STEP, IMAGE_STEP, digits_job, image_rows, onnx_classifier, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 60


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Path:
    """Return a folder with images, of which one is broken, and three models."""
    write_images(spark, tmp_path / "images", 0, ROWS, broken=(4,))
    for number in range(3):
        onnx_classifier(tmp_path / f"model-{number}.onnx", bias=float(number))
    return tmp_path


def step(lake: Path, kind: str) -> dict[str, Any]:
    one, two = f"{lake}/model-0.onnx", f"{lake}/model-1.onnx"
    return {
        "split": {"split": {"control": one, "challengers": {"two": two}, "weights": {"control": 0.7, "two": 0.3}}},
        "route": {
            "split": {"control": one, "challengers": {"two": two}, "by": "key", "key": "label", "routes": {"two": [1]}}
        },
        "shadow": {"shadow": {"champion": one, "challengers": {"two": two}}},
        "ensemble": {"ensemble": {"models": {"one": one, "two": two}}},
        "models": {"models": {"by": "label", "uri": f"{lake}/model-{{label}}.onnx"}},
        "cascade": {"cascade": {"first": one, "then": two, "unless": "out.confidence >= 0.45", "softmax": True}},
    }[kind]


def job(lake: Path, kind: str, engine: str) -> PredictConfig:
    steps = [IMAGE_STEP, step(lake, kind), FORMAT_STEP]
    return digits_job(
        lake, f"engine.name={engine}", pipeline__steps=steps, output__table=f"{lake}/{kind}_{engine}", name=kind
    )


def rows(config: PredictConfig) -> dict[str, dict[str, Any]]:
    """Read the results with the independent reader, without what is a run's own."""
    found = DeltaTable(config.output.table).to_pyarrow_table().to_pylist()
    return {
        row["path"]: {name: value for name, value in row.items() if name.startswith("out") or name == "error"}
        | {"models": row["metadata"]["models"], "times": len(row["metadata"]["elapsed_ns"])}
        for row in found
    }


@pytest.mark.parametrize("kind", ["split", "route", "shadow", "ensemble", "models", "cascade"])
def test_the_same_on_every_engine(lake: Path, spark: SparkSession, kind: str) -> None:
    on_spark, local = job(lake, kind, "spark"), job(lake, kind, "local")
    assert predict_table(on_spark, spark).rows == predict_table(local).rows == ROWS
    assert rows(on_spark) == rows(local)
    scored = rows(local)
    scored.pop("img/0004.png")
    good = image_rows(0, ROWS).filter(pa.array([number != 4 for number in range(ROWS)]))
    inferred = Pipeline(local.pipeline.declared().steps).infer(good.to_pandas(), dataset=["out", "metadata.models"])
    assert [row["out"]["label"] for row in scored.values()] == inferred["out.label"].tolist()
    assert [row["models"] for row in scored.values()] == inferred["metadata.models"].tolist()
