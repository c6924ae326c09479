"""Custom JSON: an object is one row whose values are of any length, and the answer is a list of such objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakemill.cli.app import run
from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.steps.declared import ModelStep

FORECAST = """
import numpy as np

def process_data(inputs):
    rows = [sales[-1] + step * np.arange(1, 3) for sales, step in zip(inputs["sales"], inputs["step"])]
    return {"forecast": np.stack(rows)}
"""
BODY = {"sales": [1.0, 2.0, 3.0], "step": 0.5}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "forecast.py").write_text(FORECAST)
    step = ModelStep(
        str(tmp_path / "forecast.py"),
        inputs={"sales": "sales", "step": "step"},
        outputs={"forecast": {"dtype": "float64", "shape": [None]}},
        trust=True,
    )
    return Pipeline((step,))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (BODY, [{"forecast": [3.5, 4.0]}]),
        ([BODY, {"sales": [9.0], "step": 1.0}], [{"forecast": [3.5, 4.0]}, {"forecast": [10.0, 11.0]}]),
    ],
    ids=["one object", "a list"],
)
@pytest.mark.parametrize("form", ["file", "object"])
def test_what_a_model_takes_is_the_file_and_what_it_gives_the_answer(
    pipeline: Pipeline, tmp_path: Path, body: Any, expected: Any, form: str
) -> None:
    (tmp_path / "body.json").write_text(json.dumps(body))
    data = tmp_path / "body.json" if form == "file" else body
    assert json.loads(json.dumps(pipeline.infer(data, data_format="custom-json"))) == expected


def test_fields_that_are_asked_for_keep_their_names(pipeline: Pipeline) -> None:
    (row,) = pipeline.infer(BODY, data_format="custom-json", dataset=["in.step", "out"])
    assert row == {"in.step": 0.5, "out.forecast": [3.5, 4.0]}


def test_the_command_takes_and_prints_it(
    tmp_path: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    (tmp_path / "pipeline.yaml").write_text(json.dumps(pipeline.to_dict()))
    arguments = ["infer", str(tmp_path / "pipeline.yaml"), str(tmp_path / "body.json")]
    assert run([*arguments, "--data-format", "custom-json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"forecast": [3.5, 4.0]}]


@pytest.mark.parametrize(
    ("body", "data_format", "code"),
    [("[]", "custom-json", "FILE_CONTENT"), ("[1]", "custom-json", "FILE_CONTENT"), ("{}", "json", "INFER_FORMAT")],
)
def test_what_is_no_such_json_is_said(
    pipeline: Pipeline, tmp_path: Path, body: str, data_format: str, code: str
) -> None:
    (tmp_path / "body.json").write_text(body)
    with pytest.raises(LakemillError, match=rf"^\[{code}\]"):
        pipeline.infer(tmp_path / "body.json", data_format=data_format)
