"""A drafted job fits its table and model: it loads, and its pipeline's inputs are fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from lakemill import PredictConfig
from lakemill.pipelines.resolving import resolve
from lakemill.plan.draft import Draft
from lakemill.predict.preparing import resolve_config
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.steps.declared import FormatStep, ImageStep
from lakemill_udfs.tensors.spec import arrow_tensors
from lakemill_udfs.wiring import wire
from tests.lake import onnx_classifier, photo_classifier

IMAGES = pa.schema([("path", pa.string()), ("content", pa.binary()), ("label", pa.string()), ("width", pa.int32())])


def drafted(folder: Path, columns: pa.Schema, model: Path, **values: Any) -> PredictConfig:
    """Return a drafted job, after its pipeline was wired to the table."""
    text = Draft(f"{folder}/images", columns, str(model), f"{folder}/digits", **values).yaml("job.yaml")
    (folder / "job.yaml").write_text(text)
    config = PredictConfig.load(folder / "job.yaml")
    resolved = resolve_config(config)
    wire(resolved.pipeline, resolved.models, arrow_tensors(columns))
    return config


def test_images_of_a_table_get_an_image_step_of_the_models_size(tmp_path: Path) -> None:
    config = drafted(tmp_path, IMAGES, photo_classifier(tmp_path / "photos.onnx", classes=5))
    image, _, scores = config.pipeline.declared().steps
    assert isinstance(image, ImageStep)
    assert (image.size, image.layout, image.mode, image.dtype) == ((224, 224), "NCHW", "RGB", "float32")
    assert isinstance(scores, FormatStep)
    assert (scores.input, scores.softmax) == ("logits", True)
    assert config.source.columns == ("label",)
    assert (config.name, config.source.key, config.mode) == ("digits", ("path",), "incremental")


def test_flat_pixels_are_a_square(tmp_path: Path) -> None:
    config = drafted(tmp_path, IMAGES, onnx_classifier(tmp_path / "model.onnx"), registry="sqlite:///a b.db")
    image = config.pipeline.declared().steps[0]
    assert isinstance(image, ImageStep)
    assert (image.size, image.layout, image.mode) == ((8, 8), "flat", "L")
    assert config.registry == "sqlite:///a b.db"


def test_columns_that_feed_the_model_need_no_steps(tmp_path: Path) -> None:
    columns = pa.schema([("amount", pa.float64()), ("order_id", pa.int64()), ("pixels", pa.list_(pa.float32(), 64))])
    model = onnx_classifier(tmp_path / "model.onnx")
    config = drafted(tmp_path, columns, model)
    assert config.pipeline.uri == str(model)
    assert config.source.key == ("order_id",)


def test_what_is_commented_out_is_right_too(tmp_path: Path) -> None:
    model = photo_classifier(tmp_path / "photos.onnx", classes=5)
    text = Draft("lake/images", IMAGES, str(model), "lake/digits", None).yaml()
    keys = ("registry", "where", "changes", "checks", "  - {name", "quarantine")
    lines = [
        line.replace("# ", "", 1) if line.lstrip().startswith(tuple(f"# {key}" for key in keys)) else line
        for line in text.splitlines()
    ]
    raw = yaml.safe_load("\n".join(lines))
    assert raw["quarantine"] == {"max_ratio": 0.1}
    assert raw["source"]["changes"] == "upsert"
    assert raw["pipeline"]["checks"] == [{"name": "unsure", "expr": "out.probability < 0.5"}]
    config = PredictConfig.model_validate(raw)
    assert resolve(config.pipeline.declared()).models


def test_a_table_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = onnx_classifier(tmp_path / "model.onnx")
    with pytest.raises(LakemillError, match="pixels"):
        Draft("lake/orders", pa.schema([("id", pa.int64())]), str(model), "lake/out").yaml()
    with pytest.raises(LakemillError, match=r"^\[KEY_MISSING\]"):
        Draft("lake/x", pa.schema([("content", pa.binary())]), str(model), "lake/out").yaml()
