"""From a table to a trained network and back: the notebooks, each in a process of its own, and inference unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    rows = DeltaTable(lake / "network_predictions").to_pandas()
    right = [str(out["label"]) == label for out, label in zip(rows["out"], rows["label"], strict=True)]
    (version,) = {metadata["pipeline_version"] for metadata in rows["metadata"]}
    return sum(right) / len(right), version


def test_a_network_is_swapped_and_inference_does_not_change(tmp_path: Path) -> None:
    write_digits(tmp_path)
    inference = (ROOT / "notebooks/06_inference.py").read_bytes()
    run("03_train_tensorflow.py", tmp_path)
    run("06_inference.py", tmp_path)
    keras_accuracy, keras_version = predictions(tmp_path)
    run("02_train_pytorch.py", tmp_path)
    run("06_inference.py", tmp_path)
    torch_accuracy, torch_version = predictions(tmp_path)
    assert (ROOT / "notebooks/06_inference.py").read_bytes() == inference
    assert keras_accuracy > 0.85
    assert torch_accuracy > 0.93
    assert keras_version != torch_version
    with mlflow_at(f"sqlite:///{tmp_path}/mlflow.db") as mlflow:
        version = mlflow.MlflowClient().get_model_version_by_alias("digits-network", "production")
        params = mlflow.get_run(version.run_id).data.params
    assert (str(version.version), params["training.version"]) == ("2", "0")


def test_one_model_of_each_kind_scores_one_table(tmp_path: Path) -> None:
    run("10_frameworks.py", tmp_path)
    results = {}
    for kind in ("sklearn", "xgboost", "onnx", "pyfunc", "python", "torch", "huggingface", "keras", "converted"):
        rows = DeltaTable(tmp_path / f"predictions_by_{kind}").to_pandas().sort_values("id")
        assert len(rows) == 500
        assert rows["error"].isna().all()
        results[kind] = rows["out"]
    features = np.stack(DeltaTable(tmp_path / "measurements").to_pandas().sort_values("id")["features"])
    np.testing.assert_allclose([row["mean"] for row in results["python"]], features.mean(axis=1), rtol=1e-6)
    one, other = (np.stack([next(iter(row.values())) for row in results[kind]]) for kind in ("torch", "converted"))
    np.testing.assert_allclose(one, other, atol=1e-5)
