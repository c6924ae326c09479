"""The notebook of frameworks: one model of each kind, registered with one call, and all of them score one table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_frameworks.py"
KINDS = ("sklearn", "xgboost", "onnx", "pyfunc", "python", "torch", "huggingface", "keras", "converted")


def test_one_model_of_each_kind_scores_one_table(tmp_path: Path) -> None:
    environment = os.environ | {"LAKEMILL_LAKE": str(tmp_path)}
    command = [sys.executable, str(NOTEBOOK)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = {}
    for kind in KINDS:
        rows = DeltaTable(tmp_path / f"predictions_by_{kind}").to_pandas().sort_values("id")
        assert len(rows) == 500
        assert rows["error"].isna().all()
        results[kind] = rows["out"]
    features = np.stack(DeltaTable(tmp_path / "measurements").to_pandas().sort_values("id")["features"])
    np.testing.assert_allclose([row["mean"] for row in results["python"]], features.mean(axis=1), rtol=1e-6)
    one, other = (np.stack([next(iter(row.values())) for row in results[kind]]) for kind in ("torch", "converted"))
    np.testing.assert_allclose(one, other, atol=1e-5)
