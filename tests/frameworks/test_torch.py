"""PyTorch networks give here what they give by themselves: TorchScript, exported programs, MLflow's flavour."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lakemill import ModelStep, Pipeline
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models import flavors
from lakemill_udfs.models.torch_runtime import TorchModel, device_of
from lakemill_udfs.tensors.spec import TensorSpec

X = np.random.default_rng(0).random((5, 4), dtype="float32")
DECLARED = {"output": {"dtype": "float32", "shape": [3]}}


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Two(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a - b, a.sum(dim=1)


class Named(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"half": (a / 2).to(torch.bfloat16), "count": torch.full((a.shape[0],), 3)}


class Greedy(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a.mul_(2)


def direct(network: torch.nn.Module) -> Any:
    with torch.inference_mode():
        return network(torch.from_numpy(X)).numpy()


def script(network: torch.nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(str(path))
    return path


def test_torchscript_is_a_model_whose_outputs_are_declared(tmp_path: Path) -> None:
    step = ModelStep(script(Linear(), tmp_path / "m.pt"), inputs={"input": "x"}, outputs=DECLARED)
    np.testing.assert_array_equal(Pipeline((step,)).infer({"x": X})["out.output"], direct(Linear()))


@pytest.mark.parametrize("rows", [None, 2])
def test_an_exported_program_says_its_tensors_and_takes_any_number_of_rows(tmp_path: Path, rows: int | None) -> None:
    example = torch.from_numpy(X[:rows])
    sizes = None if rows else {"x": {0: torch.export.Dim("n")}}
    torch.export.save(torch.export.export(Linear(), (example,), dynamic_shapes=sizes), tmp_path / "m.pt2")
    known = flavors.specs("torch", "m", tmp_path / "m.pt2", {}, {})
    assert known == ((TensorSpec("x", "float32", (4,)),), (TensorSpec("output", "float32", (3,)),))
    result = Pipeline((ModelStep(tmp_path / "m.pt2", trust=True),)).infer({"x": X})["out.output"]
    np.testing.assert_allclose(result, direct(Linear()), rtol=1e-6)


def test_an_exported_program_that_holds_a_pickle_is_not_looked_into(tmp_path: Path) -> None:
    """``torch.export.load`` ran it, and so did the plan."""
    torch.export.save(torch.export.export(Linear(), (torch.from_numpy(X),)), tmp_path / "m.pt2")
    hostile = io.BytesIO()
    torch.save(Evil(str(tmp_path / "ran")), hostile)
    with zipfile.ZipFile(tmp_path / "m.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, hostile.getvalue() if name.endswith(".pt") else good.read(name))
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        Pipeline((ModelStep(tmp_path / "evil.pt2"),)).resolve()
    assert not (tmp_path / "ran").exists()


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["pt2", "pickle"])
def test_an_mlflow_model_runs_without_pandas_between(tmp_path: Path, form: str) -> None:
    import mlflow.pytorch
    from mlflow.models import infer_signature

    signature = infer_signature(X, direct(Linear()))
    options = {"signature": signature, "serialization_format": form, "pip_requirements": ["torch"]}
    mlflow.pytorch.save_model(Linear(), tmp_path / "m", input_example=X, **options)
    assert flavors.recognise(tmp_path / "m", {"flavors": {"pytorch": {}}})[0] == "torch"  # type: ignore[index]  # it is one
    result = Pipeline((ModelStep(tmp_path / "m"),)).infer({"input": X})["out.output"]
    np.testing.assert_allclose(result, direct(Linear()), rtol=1e-6)


def test_columns_of_a_signature_stand_side_by_side_as_mlflow_gives_them(tmp_path: Path) -> None:
    import mlflow.pytorch
    import pandas as pd
    from mlflow.models import infer_signature

    frame = pd.DataFrame(X, columns=list("abcd"))
    signature = infer_signature(frame, pd.DataFrame(direct(Linear()), columns=["x", "y", "z"]))
    mlflow.pytorch.save_model(
        Linear(), tmp_path / "m", signature=signature, serialization_format="pickle", pip_requirements=["torch"]
    )
    result = Pipeline((ModelStep(tmp_path / "m"),)).infer(frame)
    np.testing.assert_array_equal(result["out.y"], direct(Linear())[:, 1])


def test_several_inputs_go_by_position_and_several_outputs_by_number_or_name(tmp_path: Path) -> None:
    script(Two(), tmp_path / "two.pt")
    torch.jit.trace(Named(), (torch.ones(2, 4),), strict=False).save(str(tmp_path / "named.pt"))
    two = TorchModel(tmp_path / "two.pt", (TensorSpec("input_1", shape=(4,)), TensorSpec("input_2", shape=(4,))), ())
    got = two.predict({"input_2": X, "input_1": 2 * X})
    np.testing.assert_array_equal(got["output_1"], X)
    np.testing.assert_allclose(got["output_2"], 2 * X.sum(axis=1), rtol=1e-6)
    named = TorchModel(tmp_path / "named.pt", (), ()).predict({"a": X})
    np.testing.assert_allclose(named["half"], X / 2, rtol=1e-2)


def test_a_network_that_writes_into_its_input_does_not_write_into_the_table(tmp_path: Path) -> None:
    given = X.copy()
    given.flags.writeable = False
    step = ModelStep(
        script(Greedy(), tmp_path / "m.pt"), inputs={"a": "x"}, outputs={"y": {"dtype": "float32", "shape": [4]}}
    )
    result = Pipeline((step,)).infer({"x": given})
    np.testing.assert_array_equal(result["out.y"], 2 * X)
    np.testing.assert_array_equal(given, X)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about a machine without CUDA")
def test_cuda_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"^\[DEVICE_MISSING\] engine.device is cuda:1, but PyTorch sees 0 CUDA"):
        device_of("cuda:1")
    assert device_of("auto") == "cpu"


def test_what_is_no_network_is_said(tmp_path: Path) -> None:
    torch.save(Linear().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "cut.pt").write_bytes(script(Linear(), tmp_path / "m.pt").read_bytes()[:900])
    for name, cause in (("weights", "it is no TorchScript"), ("cut", "it is damaged or cut")):
        step = ModelStep(tmp_path / f"{name}.pt", inputs={"input": "x"}, outputs=DECLARED)
        with pytest.raises(ModelError, match=rf"^\[MODEL_LOAD\] model '{name}' does not load \(torch\): \w+: {cause}"):
            Pipeline((step,)).infer({"x": X})


def test_no_memory_on_the_device_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = TorchModel._run

    def short(self: TorchModel, inputs: dict[str, Any]) -> dict[str, Any]:
        sizes.append(len(inputs["input"]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(self, inputs)

    monkeypatch.setattr(TorchModel, "_run", short)
    step = ModelStep(script(Linear(), tmp_path / "m.pt"), inputs={"input": "x"}, outputs=DECLARED)
    np.testing.assert_allclose(Pipeline((step,)).infer({"x": X})["out.output"], direct(Linear()), rtol=1e-6)
    assert max(sizes) == 5
    assert set(sizes[1:]) <= {1, 2, 3}
