"""Text to image gives here what diffusers gives by itself, from columns of the published schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lakemill
from lakemill import LakemillError, ModelStep, Pipeline
from tests.frameworks.tiny_transformers import stable_diffusion

PROMPTS = ["abc def", "hello you", "a b c"]
DATA = {
    "prompt": np.array(PROMPTS, dtype=object),
    "height": np.array([16, 16, 24]),
    "width": np.array([16, 16, 16]),
    "num_inference_steps": np.array([2, 2, 3]),
}


def alone(pipeline: Any, row: int, **more: Any) -> np.ndarray[Any, Any]:
    given = {name: values[row] if name == "prompt" else int(values[row]) for name, values in DATA.items()}
    (image,) = pipeline(generator=torch.Generator("cpu").manual_seed(0), **given, **more).images
    return np.asarray(image, np.int64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    pipeline = stable_diffusion()
    folder = tmp_path_factory.mktemp("diffusion") / "model"
    pipeline.save_pretrained(folder)
    return pipeline, folder


def test_each_row_is_the_picture_of_its_prompt(made: tuple[Any, Path]) -> None:
    pipeline, folder = made
    step = Pipeline((ModelStep(folder),))
    result = step.infer(DATA, dataset="out")["out.images"]
    for row in range(3):
        picture = np.asarray(result[row])
        assert picture.shape == (int(DATA["height"][row]), 16, 3)
        assert np.abs(picture - alone(pipeline, row)).max() <= 1, "a batch rounds elsewhere than a row alone"
    again = step.infer(DATA, dataset="out")["out.images"]
    assert all(np.array_equal(one, other) for one, other in zip(result, again, strict=True)), "repeated: the same"


def test_optional_parameters_reach_the_pipeline_and_a_null_is_its_default(made: tuple[Any, Path]) -> None:
    pipeline, folder = made
    more = {"guidance_scale": [3.0, None, 3.0], "negative_prompt": ["bad", None, "bad"]}
    result = Pipeline((ModelStep(folder),)).infer({**DATA, **more}, dataset="out")["out.images"]
    given = alone(pipeline, 0, guidance_scale=3.0, negative_prompt="bad")
    assert np.abs(np.asarray(result[0]) - given).max() <= 1
    assert np.abs(np.asarray(result[1]) - alone(pipeline, 1)).max() <= 1


def test_several_images_for_one_row_are_refused(made: tuple[Any, Path]) -> None:
    with pytest.raises(LakemillError, match=r"^\[MODEL_PARAMETER\] row 0"):
        Pipeline((ModelStep(made[1]),)).infer({**DATA, "num_images_per_prompt": np.array([2, 1, 1])})


def test_it_is_registered_from_memory(made: tuple[Any, Path], tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    rows = {name: values[:1] for name, values in DATA.items()}
    logged = lakemill.log_model(made[0], name="painter", input_example=rows, registry=registry)
    assert logged.runtime == "diffusion"
    (picture,) = Pipeline((ModelStep(logged.uri),)).infer(rows, registry=registry, dataset="out")["out.images"]
    assert np.abs(np.asarray(picture) - alone(made[0], 0)).max() <= 1
