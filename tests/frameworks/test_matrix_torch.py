"""PyTorch in each form of input, in this process, from Delta to Delta and on Spark: as the network called directly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lakemill import ModelStep
from tests.frameworks.forms import FORMS, X, from_delta_to_delta, in_process, on_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module", params=["scripted", "exported", "mlflow"])
def step(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelStep:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "scripted":
        torch.jit.script(network()).save(str(folder / "net.pt"))
        outputs = {"output": {"dtype": "float32", "shape": [3]}}
        return ModelStep(folder / "net.pt", inputs={"input": "x"}, outputs=outputs)
    if request.param == "exported":
        sizes = {"input": {0: torch.export.Dim("rows")}}
        torch.export.save(
            torch.export.export(network(), (torch.from_numpy(X),), dynamic_shapes=sizes), str(folder / "net.pt2")
        )
        return ModelStep(folder / "net.pt2", inputs={"input": "x"}, trust=True)
    import mlflow.pytorch
    from mlflow.models import infer_signature

    signature = infer_signature({"x": X}, {"output": expected()})
    mlflow.pytorch.save_model(
        network(), folder / "model", signature=signature, pip_requirements=["torch"], serialization_format="pickle"
    )
    return ModelStep(folder / "model")


def expected() -> np.ndarray:
    with torch.inference_mode():
        return network()(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("form", FORMS)
def test_in_process(step: ModelStep, form: str) -> None:
    if form == "dict of lists" and step.outputs:
        return  # Python's floats are float64: a script, which says no dtype, gets what it is given
    np.testing.assert_allclose(in_process(step, form), expected(), rtol=1e-5)


def test_from_delta_to_delta(step: ModelStep, tmp_path: Path) -> None:
    np.testing.assert_allclose(from_delta_to_delta(step, "output", tmp_path), expected(), rtol=1e-5)


def test_on_spark(spark: SparkSession, step: ModelStep, tmp_path: Path) -> None:
    for form, found in on_spark(spark, step, "output", tmp_path).items():
        np.testing.assert_allclose(found, expected(), rtol=1e-5, err_msg=form)
