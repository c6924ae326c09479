"""A model in an environment of its own: other packages than the worker's, a crash costs one row, nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lakemill import LakemillError, ModelStep, Pipeline
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.isolated_environment import environment_for
from lakemill_udfs.models.isolated_model import SHARED_MEMORY
from tests.lake import onnx_classifier

MODEL = """
import os, signal, sys
import mlflow, tomli, pandas as pd

class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input["x"] == -1).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (model_input["x"] == -2).any():
            raise ValueError("a secret of the row")
        print("models may print what they like")
        return pd.DataFrame({
            "y": model_input["x"] * 2, "pid": os.getpid(), "tomli": tomli.__file__
        })

mlflow.models.set_model(Own())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow model that needs a package which is not installed here."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    folder = tmp_path_factory.mktemp("isolated")
    (folder / "own.py").write_text(MODEL)
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "x")]),
        outputs=Schema([ColSpec("double", "y"), ColSpec("long", "pid"), ColSpec("string", "tomli")]),
    )
    (folder / "model").mkdir()
    (folder / "model" / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: null\n"
        "    model_code_path: own.py\n    streamable: false\n"
        f"signature:\n  inputs: '{signature.to_dict()['inputs']}'\n  outputs: '{signature.to_dict()['outputs']}'\n"
    )
    (folder / "model" / "own.py").write_text(MODEL)
    (folder / "model" / "requirements.txt").write_text(f"mlflow-skinny=={mlflow.__version__}\npandas<3\ntomli==2.0.1\n")
    return folder / "model"


@pytest.fixture(scope="module")
def pipeline(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        pipeline = Pipeline((ModelStep(model, env="isolated"),))
        pipeline.infer({"x": np.ones(1)})  # builds the environment
        yield pipeline


def test_a_model_runs_with_packages_that_the_worker_has_not(pipeline: Pipeline) -> None:
    with pytest.raises(ImportError):
        __import__("tomli")
    result = pipeline.infer({"x": np.arange(5.0)})
    np.testing.assert_array_equal(result["out.y"], 2 * np.arange(5.0))
    assert set(result["out.pid"]) != {os.getpid()}
    assert len(set(result["out.pid"]) | set(pipeline.infer({"x": np.ones(1)})["out.pid"])) == 1, (
        "one process serves all"
    )


def test_a_row_that_kills_the_process_or_raises_is_that_rows_error(
    model: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    from lakemill import PredictConfig, predict_table

    write_deltalake(tmp_path / "rows", pa.table({"id": [0, 1, 2, 3, 4], "x": [0.0, 1.0, -1.0, -2.0, 4.0]}))
    config = PredictConfig.load(
        name="own",
        source={"table": f"{tmp_path}/rows", "key": ["id"]},
        pipeline={"steps": [{"model": {"uri": str(model), "env": "isolated"}}]},
        output={"table": f"{tmp_path}/predictions"},
        engine={"name": "local"},
    )
    result = predict_table(config)
    assert (result.rows, result.rows_error) == (5, 2)
    rows = {row["id"]: row for row in DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()}
    assert [rows[at]["out"]["y"] for at in (0, 1, 4)] == [0, 2, 8]
    assert "ProcessDiedError" in rows[2]["error"]["message"]
    assert "ValueError" in rows[3]["error"]["message"]
    assert "secret" not in str(rows)


def test_requirements_that_cannot_be_met_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^\[MODEL_ENVIRONMENT\] no environment can be made"):
        environment_for(["lakemill-no-such-package==1"], tmp_path)
    assert not [folder for folder in tmp_path.iterdir() if folder.is_dir()], "nothing half-made stays"
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.pyfunc.model}}")
    with pytest.raises(LakemillError, match=r"^\[MODEL_ENVIRONMENT\] the model 'm' has no requirements.txt"):
        Pipeline((ModelStep(tmp_path / "m", env="isolated"),)).infer({"x": np.ones(1)})


@pytest.mark.usefixtures("pipeline")
def test_the_process_ends_with_the_one_that_started_it(model: Path) -> None:
    script = f"""
import time, numpy as np
from lakemill import ModelStep, Pipeline
print(int(Pipeline((ModelStep({str(model)!r}, env="isolated"),)).infer({{"x": np.ones(1)}})["out.pid"][0]), flush=True)
time.sleep(60)
"""
    before = set(SHARED_MEMORY.iterdir())
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
    assert set(SHARED_MEMORY.iterdir()) <= before, "the memory of its frames is free again"


def test_a_model_of_a_native_runtime_runs_apart_on_that_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its file is all that the runtime reads; what it needs stands beside it, in MLflow's folder."""
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import infer_signature

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    graph = onnx.load(str(onnx_classifier(tmp_path / "graph.onnx", inputs=4)))
    rows = np.random.default_rng(0).random((6, 4), dtype="float32")
    (expected,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"pixels": rows})
    signature = infer_signature({"pixels": rows}, {"logits": expected})
    needs = [f"onnxruntime=={onnxruntime.__version__}", "onnx"]
    mlflow.onnx.save_model(graph, tmp_path / "model", signature=signature, pip_requirements=needs)
    pipeline = Pipeline((ModelStep(tmp_path / "model", env="isolated"),))
    assert pipeline.resolve().models[0].flavor == "onnx"
    found = pipeline.infer({"pixels": rows}, dataset="out")["out.logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
