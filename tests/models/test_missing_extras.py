"""A framework that is not installed is an error that names its extra, whatever form its model has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lakemill import ModelStep, Pipeline
from lakemill_udfs.errors import ModelError

FILES = {
    "net.pt": ("torch", "torch"),
    "net.pt2": ("torch", "torch"),
    "net.keras": ("tensorflow", "tensorflow"),
    "net.h5": ("tensorflow", "tensorflow"),
    "graph/saved_model.pb": ("tensorflow", "tensorflow"),
    "bert/config.json": ("transformers", "huggingface"),
    "painter/model_index.json": ("diffusers", "huggingface"),
    "net.onnx": ("onnxruntime", "onnx"),
    "net.json": ("xgboost", "xgboost"),
    "net.skops": ("skops", "sklearn"),
}

CONTENT = {
    "bert/config.json": json.dumps({"architectures": ["BertForSequenceClassification"]}),
    "net.json": json.dumps({"learner": {"feature_names": []}, "version": [3, 0, 0]}),
}
INPUTS = {"bert/config.json": "inputs", "painter/model_index.json": "prompt"}


@pytest.mark.parametrize("file", FILES)
def test_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    package, extra = FILES[file]
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONTENT.get(file, "x"))
    for module in ("torch", package):
        monkeypatch.setitem(sys.modules, module, None)
    model = path if path.parent == tmp_path else path.parent
    outputs = {"output": {"dtype": "float32"}} if file == "net.pt" else {}
    step = ModelStep(model, inputs={INPUTS.get(file, "input"): "given"}, outputs=outputs, trust=True)
    with pytest.raises(ModelError, match=rf"^\[EXTRA_MISSING\] .*lakemill\[{extra}\]"):
        Pipeline((step,)).infer({"given": ["a"] if file in INPUTS else [1.0]})
