"""What a short command on the local engine does not pay for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from deltalake import DeltaTable

from tests.lake import IMAGE_STEP, add_images, onnx_classifier

SCRIPT = """
import sys
from lakemill.cli.app import run
status = run(sys.argv[1:])
print(status, *(name for name in ("polars", "sqlglot", "mlflow", "pyspark") if name in sys.modules))
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
    assert done.stdout.splitlines()[-1] == "0"
    assert DeltaTable(tmp_path / "predictions").count() == 20
