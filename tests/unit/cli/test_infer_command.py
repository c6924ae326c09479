"""``lakemill infer``: from a YAML or ONNX file and a data file to JSON or a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from lakemill.cli.app import guarded, run
from tests.lake import onnx_classifier, png, steps


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "x.json").write_text(json.dumps({"pixels": np.ones((2, 64)).tolist()}))
    (tmp_path / "x.df.json").write_text(json.dumps([{"pixels": [1.0] * 64}]))
    parquet.write_table(pa.table({"pixels": np.ones((2, 64)).tolist()}), tmp_path / "x.parquet")
    return onnx_classifier(tmp_path / "c.onnx")


def infer(*arguments: Any) -> int:
    return guarded(lambda: run(["infer", *map(str, arguments)]))


def test_json_in_json_out(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(model, model.parent / "x.json", "--dataset", "out", "--dataset", "check_failures") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [*printed] == ["out.logits", "check_failures"]
    assert np.shape(printed["out.logits"]) == (2, 3)
    assert infer(model, model.parent / "x.df.json", "--dataset-exclude", "in", "--dataset-separator", "_") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [*record] == ["time", "out_logits", "anomaly_count"]
    assert record["out_logits"] == printed["out.logits"][0]


@pytest.mark.parametrize("source", ["x.json", "x.df.json", "x.parquet"])
def test_results_go_to_files(model: Path, source: str) -> None:
    folder = model.parent
    for name in ("y.arrow", "y.parquet", "y.json", "y.df.json"):
        assert infer(model, folder / source, "--output", folder / name) == 0
    with pa.memory_map(str(folder / "y.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table["out.logits"].to_pylist() == parquet.read_table(folder / "y.parquet")["out.logits"].to_pylist()
    assert table["out.logits"].to_pylist() == json.loads((folder / "y.json").read_text())["out.logits"]
    assert table["out.logits"][0].as_py() == json.loads((folder / "y.df.json").read_text())[0]["out.logits"]


def test_an_image_through_a_pipeline_in_yaml(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model.parent / "p.yaml").write_text(yaml.safe_dump({"pipeline": {"steps": steps(model)}}))
    (model.parent / "one.png").write_bytes(png(3))
    assert infer(model.parent / "p.yaml", model.parent / "one.png") == 0
    assert json.loads(capsys.readouterr().out)["out.label"][0] in ("a", "b", "c")


def test_what_is_wrong_is_one_line_and_exit_status_2(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in (
        (("none.onnx", model.parent / "x.json"), "MODEL_NOT_FOUND"),
        ((model, model.parent / "none.json"), "FILE_NOT_FOUND"),
        ((model, model.parent / "x.json", "--dataset", "outs"), "DATASET_UNKNOWN"),
        ((model, model.parent / "x.json", "--output", "y.csv"), "FILE_FORMAT"),
    ):
        assert infer(*arguments) == 2
        assert f"[{code}]" in capsys.readouterr().err
