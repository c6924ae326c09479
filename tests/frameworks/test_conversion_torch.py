"""PyTorch networks as ONNX graphs, with a certificate; half precision and channels last, by option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lakemill
from lakemill import LakemillError, ModelStep, Pipeline
from lakemill.pipelines import converting

X = np.random.default_rng(0).random((6, 3, 8, 8), dtype="float32")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 3)
    return torch.nn.Sequential(*layers).eval()


def direct(one: torch.nn.Module, dtype: Any = torch.float32) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        return one.to(dtype)(torch.from_numpy(X).to(dtype)).float().numpy()


def exported() -> torch.export.ExportedProgram:
    sizes = {"input": {0: torch.export.Dim("rows")}}
    return torch.export.export(network(), (torch.from_numpy(X),), dynamic_shapes=sizes)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


def logged(model: Any, form: str, registry: str, **options: Any) -> Any:
    example = {"input": X}
    return lakemill.log_model(
        model, name=form, registry=registry, input_example=example, trust=True, convert="onnx", **options
    )


@pytest.mark.parametrize("form", ["exported", "scripted", "mlflow"])
def test_a_network_becomes_a_graph_that_gives_the_same(form: str, registry: str, tmp_path: Path) -> None:
    if form == "mlflow":
        import mlflow.pytorch
        from mlflow.models import infer_signature

        signature = infer_signature({"input": X}, {"output": direct(network())})
        model: Any = tmp_path / "model"
        mlflow.pytorch.save_model(
            network(), model, signature=signature, pip_requirements=["torch"], serialization_format="pickle"
        )
    else:
        model = exported() if form == "exported" else torch.jit.script(network())
    found = logged(model, form, registry)
    assert (found.runtime, found.certificate["by"], found.certificate["rows"]) == ("onnx", "torch.onnx", 6)
    assert found.certificate["largest_error"] < 1e-5
    pipeline = Pipeline((ModelStep(found.uri),))
    for rows in (1, 6):
        result = pipeline.infer({"input": X[:rows]}, registry=registry, dataset="out")
        (name,) = result
        np.testing.assert_allclose(result[name], direct(network())[:rows], atol=1e-5)
    assert "onnx by torch.onnx" in str(pipeline.plan({"input": X}, registry=registry))


def test_a_wrong_graph_is_refused(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = network()
    with torch.no_grad():
        wrong[3].bias += 0.01  # type: ignore[index, operator]
    planted = torch.jit.script(wrong)
    honest = converting.CONVERTERS["torch"]
    monkeypatch.setitem(converting.CONVERTERS, "torch", lambda _, spec: honest(planted, spec))
    with pytest.raises(LakemillError, match=r"^\[CONVERT_DISAGREES\] .* largest error 0\.01.*the worst rows: \d"):
        logged(torch.jit.script(network()), "wrong", registry)


def test_a_network_in_memory_is_registered(registry: str) -> None:
    found = lakemill.log_model(exported(), name="memory", registry=registry)
    assert (found.runtime, found.inputs) == ("torch", ("input float32[3, 8, 8]",))
    result = Pipeline((ModelStep(found.uri),)).infer({"input": X}, registry=registry, dataset="out")
    np.testing.assert_allclose(result["out.output"], direct(network()), atol=1e-6)


def step(tmp_path: Path, **options: Any) -> Pipeline:
    torch.jit.script(network()).save(str(tmp_path / "net.pt"))
    outputs = {"output": {"dtype": "float32", "shape": [3]}}
    return Pipeline((ModelStep(tmp_path / "net.pt", inputs={"input": "input"}, outputs=outputs, options=options),))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_the_networks_own_and_gives_float32(tmp_path: Path, precision: str) -> None:
    result = np.array(step(tmp_path, precision=precision).infer({"input": X}, dataset="out")["out.output"])
    np.testing.assert_array_equal(result, direct(network(), getattr(torch, precision)))
    assert np.abs(result - direct(network())).max() > 0


def test_channels_last_is_the_same_network(tmp_path: Path) -> None:
    result = step(tmp_path, channels_last=True).infer({"input": X}, dataset="out")["out.output"]
    np.testing.assert_allclose(result, direct(network()), atol=1e-6)


def test_an_option_that_a_network_cannot_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(LakemillError, match=r"^\[MODEL_OPTION\] precision is one of float32, float16, bfloat16"):
        step(tmp_path, precision="half").infer({"input": X})
    torch.export.save(exported(), str(tmp_path / "net.pt2"))
    with pytest.raises(LakemillError, match=r"^\[MODEL_OPTION\] an exported program has the types"):
        Pipeline((ModelStep(tmp_path / "net.pt2", options={"precision": "float16"}, trust=True),)).infer({"input": X})
