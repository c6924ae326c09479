"""What a short command on the local engine does not pay for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from deltalake import DeltaTable
from sklearn.linear_model import LinearRegression

import lakemill
from tests.lake import IMAGE_STEP, add_images, add_rows, onnx_classifier

SCRIPT = """
import sys
from lakemill.cli.app import run
status = run(sys.argv[1:])
heavy = ("polars", "pandas", "sqlglot", "mlflow", "skops", "sklearn", "pyspark")
print(status, *(name for name in heavy if name in sys.modules))
"""


def test_a_first_run_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    add_images(tmp_path / "images", 0, 20)
    onnx_classifier(tmp_path / "model.onnx")
    job = {
        "name": "short",
        "source": {"table": str(tmp_path / "images"), "key": ["path"]},
        "pipeline": {
            "steps": [IMAGE_STEP, {"model": {"uri": str(tmp_path / "model.onnx")}}],
        },
        "output": {"table": str(tmp_path / "predictions")},
        "engine": {"name": "local"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-c", SCRIPT, "predict", "--config", str(tmp_path / "job.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] in ("0", "0 pandas")  # which its rows may need
    assert DeltaTable(tmp_path / "predictions").count() == 20


def test_a_run_with_nothing_new_loads_neither_the_registry_nor_the_model(tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    x = np.arange(12, dtype=np.float64).reshape(6, 2)
    lakemill.log_model(LinearRegression().fit(x, x[:, 0]), name="lines", alias="now", registry=registry)
    add_rows(tmp_path / "rows", {"id": ["a", "b"], "x": [[1.0, 2.0], [3.0, 4.0]]})
    job = {
        "name": "short",
        "registry": registry,
        "source": {"table": str(tmp_path / "rows"), "key": ["id"]},
        "pipeline": {
            "steps": [
                {"model": {"uri": "models:/lines@now", "inputs": {"inputs": "x"}, "outputs": {"predictions": "y"}}}
            ],
            "checks": [{"name": "low", "expr": "out.y < 0"}],
        },
        "output": {"table": str(tmp_path / "predictions")},
        "engine": {"name": "local"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-c", SCRIPT, "predict", "--config", str(tmp_path / "job.yaml"), "--json"]
    loaded = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
        loaded.append(done.stdout.splitlines()[-1])
    assert loaded[0].startswith("0 polars")
    assert "sklearn" in loaded[0]
    assert "mlflow" not in loaded[0]
    assert loaded[1] == "0 polars"
    assert DeltaTable(tmp_path / "predictions").count() == 2
