"""From a table to a trained network and back: the notebooks, each in a process of its own, and inference unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable

from lakemill.pipelines.registry import mlflow_at
from tests.frameworks.digits import write_digits

ROOT = Path(__file__).parents[2]


def run(notebook: str, lake: Path) -> None:
    environment = os.environ | {"LAKEMILL_LAKE": str(lake), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, ROOT / "notebooks" / notebook]
    done = subprocess.run(command, env=environment, cwd=lake, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def predictions(lake: Path) -> tuple[float, str]:
    """Return the share of right labels, and the version that scored."""
    rows = DeltaTable(lake / "inference").to_pandas()
    assert rows["path"].is_unique
    right = [out["label"] == label for out, label in zip(rows["out"], rows["label"], strict=True)]
    (version,) = {metadata["models"][0]["version"] for metadata in rows["metadata"]}
    return sum(right) / len(right), version


def test_a_network_is_swapped_and_inference_does_not_change(tmp_path: Path) -> None:
    write_digits(tmp_path)
    run("03_train_tensorflow.py", tmp_path)
    cell, job = inference(tmp_path)
    keras_accuracy, keras_version = predictions(tmp_path)
    run("02_train_pytorch.py", tmp_path)
    assert inference(tmp_path) == (cell, job), "the same bytes, in the notebook and in the job"
    torch_accuracy, torch_version = predictions(tmp_path)
    assert keras_accuracy > 0.85
    assert torch_accuracy > 0.93
    assert (keras_version, torch_version) == ("1", "2")
    with mlflow_at(f"sqlite:///{tmp_path}/mlflow.db") as mlflow:
        client = mlflow.MlflowClient()
        for version, model in (("1", "keras"), ("2", "torch")):
            registered = client.get_model_version("digits", version)
            logged = mlflow.models.get_model_info(f"models:/digits/{version}")
            assert logged.signature.inputs.input_names() == ["content"], model
            assert logged.saved_input_example_info, model
            ran = mlflow.get_run(registered.run_id)
            assert ran.data.params["training.version"] == "0"
            assert {"loss", "validation_accuracy"} <= set(ran.data.metrics), model
            contexts = {tag.value for entry in ran.inputs.dataset_inputs for tag in entry.tags if "context" in tag.key}
            assert contexts == {"training", "validation"}
    run("08_time_travel.py", tmp_path)


def inference(lake: Path) -> tuple[bytes, bytes]:
    """Run the notebook, and return what it is and the job that it wrote."""
    run("06_inference.py", lake)
    return (ROOT / "notebooks/06_inference.py").read_bytes(), (lake / "inference.yaml").read_bytes()
