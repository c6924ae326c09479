"""What needs a GPU: the CPU's results, real out of memory, devices by number. ``make test-gpu``, where there is one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.torch_runtime import TorchModel, device_of
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.tensors.spec import TensorSpec

IMAGE = (3, 64, 64)
INPUTS = (TensorSpec("input", "float32", IMAGE),)
OUTPUTS = (TensorSpec("output", "float32", (10,)),)
DECLARED = {"output": {"dtype": "float32", "shape": [10]}}


class Small(torch.nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, channels, 3, padding=1)
        self.second = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.head = torch.nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.mean(dim=(2, 3)))


class Hungry(torch.nn.Module):
    """Takes a fifth of the device's memory for each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = torch.cuda.get_device_properties(0).total_memory // 5
        room = torch.empty((x.shape[0], share), dtype=torch.uint8, device=x.device)
        return x.flatten(1)[:, :10] + room[:, :1].float() * 0


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(0).random((rows, *IMAGE), dtype="float32")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    program = torch.export.export(
        Small().eval(), (torch.from_numpy(images(2)),), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1)}}
    )
    torch.export.save(program, tmp_path / "m.pt2")
    return tmp_path / "m.pt2"


def test_auto_is_the_gpu_and_gives_what_the_cpu_gives(network: Path) -> None:
    data = images(64)
    gpu = TorchModel(network, INPUTS, OUTPUTS, device="auto")
    assert gpu.device == "cuda"
    cpu = TorchModel(network, INPUTS, OUTPUTS, device="cpu")
    np.testing.assert_allclose(
        gpu.predict({"input": data})["output"], cpu.predict({"input": data})["output"], rtol=2e-3, atol=2e-4
    )


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert device_of("cuda:0") == "cuda:0"
    with pytest.raises(ModelError, match=r"^\[DEVICE_MISSING\] engine.device is cuda:9, but PyTorch sees \d+ CUDA"):
        device_of("cuda:9")


def test_a_batch_that_the_gpu_has_no_memory_for_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = TorchModel._run

    def noted(self: TorchModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(inputs["input"]))
        return run(self, inputs)

    monkeypatch.setattr(TorchModel, "_run", noted)
    monkeypatch.setattr("lakemill_udfs.models.torch_runtime._loaded", lambda path, device: Hungry())
    torch.jit.script(Small()).save(str(tmp_path / "m.pt"))
    step = ModelStep(str(tmp_path / "m.pt"), inputs={"input": "x"}, outputs=DECLARED)
    data = images(16)
    result = Pipeline((step,)).infer({"x": data})["out.output"]
    np.testing.assert_allclose(result, data.reshape(16, -1)[:, :10], rtol=1e-6)
    assert max(sizes) == 16, "the whole batch is tried first"
    assert min(sizes) <= 4, sizes


def test_whole_pipelines_run_on_it(network: Path) -> None:
    data, seconds = images(2048), {}
    for device in ("cpu", "cuda"):
        model = TorchModel(network, INPUTS, OUTPUTS, device=device)
        model.predict({"input": data[:256]})
        started = time.perf_counter()
        for at in range(0, len(data), 256):
            model.predict({"input": data[at : at + 256]})
        seconds[device] = time.perf_counter() - started
    print({device: f"{len(data) / took:,.0f} rows/s" for device, took in seconds.items()})
    result = Pipeline((ModelStep(str(network)),)).infer({"x": data})["out.output"]
    assert result.shape == (2048, 10)
