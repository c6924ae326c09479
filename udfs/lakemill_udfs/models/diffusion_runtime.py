"""Text to image: a folder of a Stable Diffusion pipeline, as ``save_pretrained`` of diffusers writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import huggingface_runtime, plain_runtime
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.torch_runtime import device_of
from lakemill_udfs.tensors.ragged import stacked
from lakemill_udfs.tensors.spec import TensorSpec

INDEX = "model_index.json"

INPUTS = (
    TensorSpec("prompt", "string"),
    TensorSpec("height", "int64", nullable=True),
    TensorSpec("width", "int64", nullable=True),
    TensorSpec("num_inference_steps", "int64", nullable=True),
    TensorSpec("guidance_scale", "float64", nullable=True),
    TensorSpec("negative_prompt", "string", nullable=True),
    TensorSpec("num_images_per_prompt", "int64", nullable=True),
    TensorSpec("eta", "float64", nullable=True),
)
OUTPUTS = (TensorSpec("images", "int64", (None, None, 3)),)

BATCH_ROWS = 4
"""Rows that go through the network at once; a picture takes hundreds of megabytes."""

RELEASES_LOCK = False

DISTRIBUTIONS: tuple[str, ...] = ("diffusers", "transformers", "torch")

OPTIONS: tuple[str, ...] = ("seed",)
"""``seed``: each row starts from this noise, so that a batch that is repeated gives the same pictures; 0 by default."""

options, native, log = plain_runtime.options, plain_runtime.native, plain_runtime.log


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a pipeline's folder."""
    return ModelFiles(path) if path.is_dir() and (path / INDEX).is_file() else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether the folder brings Python, or weights that are pickles, as ``.bin`` and ``.ckpt`` are."""
    return any(file.suffix in {".py", ".bin", ".ckpt", ".pt", ".pth"} for file in path.rglob("*"))


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return the inputs and outputs of the task."""
    return INPUTS, OUTPUTS


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> DiffusionModel:
    """Load a pipeline onto a device."""
    return DiffusionModel(path, threads=threads, device=device, seed=int(spec.options.get("seed", 0)))


cause = huggingface_runtime.cause


def write(value: Any, folder: Path) -> Path | None:
    """Write a pipeline that is in memory."""
    if plain_runtime.class_root(value) != "diffusers" or not hasattr(value, "save_pretrained"):
        return None
    value.save_pretrained(folder / "model")
    return folder / "model"


class DiffusionModel:
    """One pipeline.

    Args:
        path: Its folder; nothing is fetched from a hub.
        threads: Threads inside one operator, for the whole process; 0 leaves PyTorch's default.
        device: As ``TorchModel``.
        seed: Of each row's noise.

    Raises:
        ModelError: ``EXTRA_MISSING`` without diffusers and PyTorch, ``DEVICE_MISSING`` if a device is asked for and not
            there.
    """

    inputs, outputs = INPUTS, OUTPUTS

    def __init__(self, path: Path, *, threads: int = 0, device: str = "auto", seed: int = 0) -> None:
        self._torch, diffusers = _modules()
        if threads:
            self._torch.set_num_threads(threads)
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(path), local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        self._call, self._seed = foreign(pipeline.to(device_of(device))), seed

    def predict(self, inputs: Arrays) -> Arrays:
        """Return a picture ``(height, width, 3)`` for each row; rows with the same parameters are one call.

        Raises:
            RowError: ``MODEL_PARAMETER`` for more than one image of a row.
        """
        rows = len(inputs["prompt"])
        parameters = [
            {name: huggingface_runtime.plain(array[row]) for name, array in inputs.items()} for row in range(rows)
        ]
        groups: dict[str, list[int]] = {}
        for row, given in enumerate(parameters):
            if (given.pop("num_images_per_prompt", None) or 1) != 1:
                raise RowError("MODEL_PARAMETER", "num_images_per_prompt is 1 here: a row has one image.")
            groups.setdefault(repr({**given, "prompt": None, "negative_prompt": None}), []).append(row)
        found: list[NDArray[Any]] = [np.empty(0)] * rows
        for members in groups.values():
            for start in range(0, len(members), BATCH_ROWS):
                part = members[start : start + BATCH_ROWS]
                for row, image in zip(part, self._images([parameters[row] for row in part]), strict=True):
                    found[row] = np.asarray(image.convert("RGB"), np.int64)
        return {"images": stacked(found)}

    def _images(self, rows: list[dict[str, Any]]) -> list[Any]:
        given = {name: value for name, value in rows[0].items() if value is not None}
        given["prompt"] = [row["prompt"] for row in rows]
        if any(row.get("negative_prompt") is not None for row in rows):
            given["negative_prompt"] = [row.get("negative_prompt") or "" for row in rows]
        noise = [self._torch.Generator("cpu").manual_seed(self._seed) for _ in rows]
        return list(self._call(generator=noise, **given).images)


def _modules() -> tuple[Any, Any]:
    huggingface_runtime.without_tensorflow()
    try:
        import diffusers
        import torch
    except ImportError as error:
        raise missing_extra("diffusers", "huggingface") from error
    return torch, diffusers
