"""Hugging Face pipelines: a folder that ``save_pretrained`` made, and MLflow models of the transformers flavour."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import plain_runtime
from lakemill_udfs.models.causes import meaning
from lakemill_udfs.models.huggingface_tasks import TASKS, Task, task_named, task_of
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.models.torch_runtime import device_of
from lakemill_udfs.tensors.ragged import from_rows, stacked
from lakemill_udfs.tensors.spec import TensorSpec

RELEASES_LOCK = False  # tokenizers and Python around the network hold it most of the time

DISTRIBUTIONS: tuple[str, ...] = ("transformers", "torch")

OPTIONS: tuple[str, ...] = ()

TASK_KEY = "lakemill_task"
"""Key of ``config.json`` for the task."""

options, native, log = plain_runtime.options, plain_runtime.native, plain_runtime.log


def write(value: Any, folder: Path) -> Path | None:
    """Write a pipeline that is in memory, with its task, which the files alone may leave open."""
    task = task_named(getattr(value, "task", None))
    if plain_runtime.class_root(value) != "transformers" or task is None:
        return None
    value.save_pretrained(folder / "model")
    config = _config(folder / "model") | {TASK_KEY: task}
    (folder / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "model"


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a pipeline's folder, or an MLflow model of the transformers flavour whose task is one of these."""
    if not path.is_dir():
        return None
    if "flavors" in described:
        flavor = described.get("flavors", {}).get("transformers")
        return ModelFiles(path) if flavor is not None and task_named(flavor.get("task")) else None
    return ModelFiles(path) if "architectures" in _config(path) else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return false: code that a folder brings is not run."""
    return False


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return the inputs and outputs of the task, and what else a signature names for ``generate``."""
    task = TASKS[_task(path, described)]
    known = {spec.name for spec in task.inputs}
    named = {column.get("name") for column in json.loads((described.get("signature") or {}).get("inputs") or "[]")}
    more = tuple(spec for spec in signature_specs(described)[0] if spec.name in named - known)
    if more and not task.forwards:
        raise ModelError(
            "MODEL_INPUT_UNKNOWN",
            f"the model's signature has the input '{more[0].name}', which its task does not take; it takes: "
            f"{', '.join(sorted(known))}.",
        )
    return task.inputs + more, task.outputs


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> HuggingFaceModel:
    """Load a pipeline onto a device."""
    return HuggingFaceModel(path, spec.inputs, spec.outputs, threads=threads, device=device)


CAUSES = (
    (r"(?:no file named|does not appear to have a file named) ([\w.]+)", "its file {0} is missing"),
    (r"trust_remote_code", "it brings code of its own, which is not run"),
    (
        r"Error while deserializing header|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        "its weights are damaged",
    ),
    (r"model type `([\w-]+)`|Unrecognized model", "this version of transformers does not know its kind"),
)
"""What transformers says when a folder is bad, and what that means."""


def cause(error: Exception, path: Path) -> str:
    """Return why a pipeline does not load, in the terms of transformers."""
    return meaning(error, CAUSES)


class HuggingFaceModel:
    """One pipeline.

    Args:
        path: Its folder, or the MLflow model's.
        inputs: The inputs of its task, and further ones that go to the model's ``generate``.
        outputs: The outputs of its task.
        threads: Threads inside one operator, for the whole process; 0 leaves PyTorch's default.
        device: As ``TorchModel``.

    Raises:
        ModelError: ``EXTRA_MISSING`` without transformers and PyTorch, ``MODEL_TASK`` if the folder may be of several
            tasks, ``DEVICE_MISSING`` if a device is asked for and not there.
    """

    def __init__(self, path: Path, inputs: Specs, outputs: Specs, *, threads: int = 0, device: str = "auto") -> None:
        transformers = _transformers()
        device = device_of(device)
        if threads:
            import torch

            torch.set_num_threads(threads)
        name = _task(path, _described(path))
        self._task: Task = TASKS[name]
        self.inputs, self.outputs = inputs, outputs
        self._pipeline = _loaded(transformers, path, name, device)
        self._call = foreign(self._pipeline)

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the task's outputs; rows that have the same parameters are one call of the pipeline."""
        parameters = {name: array for name, array in inputs.items() if name not in self._task.main}
        rows = len(next(iter(inputs.values())))
        groups: dict[str, list[int]] = {}
        for row in range(rows):
            key = repr([plain(array[row]) for array in parameters.values()]) if parameters else ""
            groups.setdefault(key, []).append(row)
        found: list[Any] = [None] * rows
        for members in groups.values():
            first = {name: plain(array[members[0]]) for name, array in parameters.items()}
            given = {name: value for name, value in first.items() if value is not None}
            mains = [[self._main(inputs[name][row]) for row in members] for name in self._task.main]
            for row, result in zip(members, self._results(mains, given), strict=True):
                found[row] = self._task.read(result)
        return {spec.name: _batch([row[spec.name] for row in found], spec) for spec in self.outputs}

    def _results(self, mains: list[list[Any]], given: dict[str, Any]) -> list[Any]:
        if len(mains) == 1 and self._task.main == ("images",):  # zero-shot detection takes its labels with each image
            labels = given.pop("candidate_labels")
            images = [{"image": image, "candidate_labels": labels} for image in mains[0]]
            return list(self._call(images, batch_size=self._task.batch_rows, **given))
        if len(mains) > 1:
            named = dict(zip(self._task.main, mains, strict=True))
            results = self._call(batch_size=self._task.batch_rows, **named, **given)
            return [results] if isinstance(results, dict) else list(results)
        return list(self._call(mains[0], batch_size=self._task.batch_rows, **given))

    def _main(self, value: Any) -> Any:
        if self._task.kind == "image":
            from PIL import Image

            return Image.fromarray(np.asarray(value).astype(np.uint8))
        return np.asarray(value, np.float32) if self._task.kind == "audio" else str(value)


def _loaded(transformers: Any, path: Path, task: str, device: str) -> Any:
    if _described(path):
        try:
            import mlflow.transformers
        except ImportError as error:
            raise missing_extra("mlflow", "mlflow") from error
        pipeline = mlflow.transformers.load_model(str(path), return_type="pipeline", device=device)
    else:
        pipeline = transformers.pipeline(task, model=str(path), device=device)  # a folder: nothing is fetched
    _make_fit_for_batches(pipeline, task)
    return pipeline


def _make_fit_for_batches(pipeline: Any, task: str) -> None:
    """Let texts of different length stand in one batch, also for networks that go on where a text ends, as GPT-2."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    if tokenizer is None:
        return
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if task == "text-generation":
        tokenizer.padding_side = "left"


def without_tensorflow() -> None:
    """Keep transformers 4 from importing TensorFlow too: it fails beside Keras 3."""
    os.environ.setdefault("USE_TF", "0")


def _transformers() -> Any:
    without_tensorflow()
    try:
        import torch  # noqa: F401 -- transformers' own error would not name the extra
        import transformers
    except ImportError as error:
        raise missing_extra("transformers", "huggingface") from error
    return transformers


def _task(path: Path, described: Mapping[str, Any]) -> str:
    if "flavors" in described:
        return str(task_named(described["flavors"]["transformers"]["task"]))
    config = _config(path)
    architecture = str((config.get("architectures") or [""])[0])
    task = task_named(config.get(TASK_KEY)) or task_of(architecture)
    if task is None:
        raise ModelError(
            "MODEL_TASK",
            f"the model '{path.name}' ({architecture or 'no architecture'}) may be of several tasks.",
            hint='write it into its config.json, for example "lakemill_task": "summarization"; there are: '
            + ", ".join(TASKS),
        )
    return task


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _described(path: Path) -> dict[str, Any]:
    if not (path / "MLmodel").is_file():
        return {}
    import yaml  # comes with MLflow

    described: dict[str, Any] = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
    return described


def plain(value: Any) -> Any:
    """Return a parameter as Python's own value; a null, which is NaN among floats, as None: the pipeline's default."""
    own = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return None if isinstance(own, float) and math.isnan(own) else own


def _batch(values: list[Any], spec: TensorSpec) -> NDArray[Any]:
    if spec.shape:
        return stacked([np.asarray(value) for value in values])
    return from_rows(values) if spec.dtype == "string" else np.array(values, spec.dtype)
