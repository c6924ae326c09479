"""Hugging Face pipelines give here what they give by themselves, row for row, from columns of the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakemill import ModelStep, Pipeline
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.huggingface_tasks import TASKS
from tests.frameworks.tiny_transformers import MADE

RNG = np.random.default_rng(0)
MAIN = {
    "text": np.array(["abc def", "a b, c?", "hello you there"], dtype=object),
    "image": RNG.integers(0, 255, (3, 40, 30, 3)),
    "audio": RNG.standard_normal((3, 4000)).astype("float32"),
}
GIVEN: dict[str, dict[str, Any]] = {
    "image-classification": {"top_k": [2, 2, 3]},
    "object-detection": {"threshold": [0.0, 0.0, 0.0]},
    "text-classification": {"top_k": [2, 1, 2]},
    "zero-shot-classification": {"candidate_labels": [["a", "b"], ["a", "b"], ["b", "c", "d"]]},
    "zero-shot-image-classification": {"candidate_labels": [["a", "b"], ["a", "b"], ["b", "c", "d"]]},
    "zero-shot-object-detection": {"candidate_labels": [["a", "b"]] * 3, "threshold": [0.0, 0.0, 0.0]},
    "text-generation": {"return_full_text": [True, False, False]},
}


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(task: str, folder: Path) -> tuple[Any, Path]:
    import torch

    torch.manual_seed(0)
    pipeline = MADE[task]()
    pipeline.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "lakemill_task": task}))
    return pipeline, folder


def test_each_row_is_what_the_pipeline_itself_gives(task: str, tmp_path: Path) -> None:
    pipeline, folder = saved(task, tmp_path / "model")
    schema, given = TASKS[task], GIVEN.get(task, {})
    data = dict.fromkeys(schema.main, MAIN[schema.kind]) | {
        name: np.array(values) if not isinstance(values[0], list) else values for name, values in given.items()
    }
    result = Pipeline((ModelStep(folder),)).infer(data, dataset=["out"])
    for row in range(3):
        expected = schema.read(alone(pipeline, task, row, {name: values[row] for name, values in given.items()}))
        for name, value in expected.items():
            got = result[f"out.{name}"][row]
            if isinstance(value, np.ndarray) and value.dtype != object:
                np.testing.assert_allclose(np.asarray(got, float), value, rtol=1e-3, atol=1e-4, err_msg=name)
            elif isinstance(value, float):
                assert got == pytest.approx(value, abs=1e-4)
            else:
                assert (list(got) if isinstance(value, np.ndarray) else got) == (
                    list(value) if isinstance(value, np.ndarray) else value
                ), name


def alone(pipeline: Any, task: str, row: int, parameters: dict[str, Any]) -> Any:
    """Call a pipeline with one row, as its own users do."""
    from PIL import Image

    kind = TASKS[task].kind
    value = MAIN[kind][row]
    main = Image.fromarray(value.astype("uint8")) if kind == "image" else value.copy() if kind == "audio" else value
    if task == "question-answering":
        return pipeline(question=main, context=main)
    if task == "zero-shot-object-detection":
        return pipeline(main, **parameters)
    found = pipeline(main, **parameters)
    return found[0] if task == "zero-shot-classification" and isinstance(found, list) else found


def test_an_mlflow_model_says_its_task_and_further_inputs_reach_generate(tmp_path: Path) -> None:
    import mlflow.transformers
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    torch.manual_seed(0)
    inputs = Schema([ColSpec("string", "inputs"), ColSpec("long", "max_new_tokens")])
    signature = ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string", "generated_text")]))
    pipeline = MADE["text-generation"]()
    mlflow.transformers.save_model(
        pipeline, tmp_path / "model", signature=signature, pip_requirements=["transformers", "torch"]
    )
    data = {"inputs": MAIN["text"], "max_new_tokens": np.array([2, 2, 5])}
    result = Pipeline((ModelStep(tmp_path / "model"),)).infer(data)
    expected = [
        pipeline(text, max_new_tokens=int(count))[0]["generated_text"]
        for text, count in zip(MAIN["text"], data["max_new_tokens"], strict=True)
    ]
    assert [list(row) for row in result["out.generated_text"]] == [[text] for text in expected]


def test_a_folder_of_several_tasks_says_what_to_write(tmp_path: Path) -> None:
    MADE["summarization"]().save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match=r'^\[MODEL_TASK\] the model \'t5\' .*"lakemill_task": "summarization"'):
        Pipeline((ModelStep(tmp_path / "t5"),)).infer({"inputs": MAIN["text"]})


def test_weights_that_are_cut_short_are_said_so(tmp_path: Path) -> None:
    _, folder = saved("text-classification", tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] model 'cut' does not load .*weights are damaged"):
        Pipeline((ModelStep(folder),)).infer({"inputs": MAIN["text"]})
