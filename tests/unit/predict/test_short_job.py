"""A job in one Python call is the job that the command line and a YAML file would make."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakemill import PredictConfig, ingest_images, predict_stream, predict_table
from lakemill.predict.short_job import as_config
from lakemill_udfs.errors import ConfigError
from tests.lake import onnx_classifier


def test_three_words_are_a_job_and_it_is_called_as_on_the_command_line() -> None:
    config = as_config(
        None, {"source": "lake/images", "model": "models:/digits@production", "output": "lake/predictions"}
    )
    assert config == PredictConfig.load(
        source__table="lake/images",
        pipeline__uri="models:/digits@production",
        output__table="lake/predictions",
        name="predictions",
    )


def test_one_key_needs_no_list() -> None:
    config = as_config(None, {"source": "a/b", "model": "m.onnx", "output": "c/d", "key": "id", "columns": ("x", "y")})
    assert config.source.key == ("id",)
    assert config.source.columns == ("x", "y")


def test_what_is_missing_or_there_twice_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[CONFIG_INVALID\] .*'source' is missing; 'output' is missing"):
        predict_table(model="models:/digits@production")
    with pytest.raises(ConfigError, match=r"^\[CONFIG_INVALID\] a job is given as .* got both \(source\)"):
        predict_table(PredictConfig.load(source__table="a/b", pipeline__uri="m", output__table="c/d"), source="e/f")
    model = str(onnx_classifier(tmp_path / "m.onnx"))
    with pytest.raises(ConfigError, match=r"^\[TABLE_NOT_FOUND\]"):
        predict_table(source=f"{tmp_path}/images", model=model, output=f"{tmp_path}/predictions")


def test_a_job_that_is_no_job_says_what_is_one(tmp_path: Path) -> None:
    for call, kind in ((predict_table, "Predict"), (predict_stream, "Predict"), (ingest_images, "Ingest")):
        with pytest.raises(
            ConfigError, match=rf"^\[CONFIG_INVALID\] the job is a {kind}Config; got str.* {kind}Config.load"
        ):
            call("job.yaml")
    with pytest.raises(ConfigError, match=r"^\[CONFIG_INVALID\] arguments: unknown 'sorce'; .* did you mean 'source'"):
        predict_table(sorce="lake/rows", model="m.onnx", output="lake/p")
    with pytest.raises(
        ConfigError, match=r"^\[(TABLE|MODEL)_NOT_FOUND\]"
    ):  # paths are as good as texts; Spark looks last
        predict_table(source=tmp_path / "rows", model=tmp_path / "m.onnx", output=tmp_path / "p", key="id")
