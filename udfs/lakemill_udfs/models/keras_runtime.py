"""Keras models: ``.keras`` and HDF5 files, and MLflow models of the keras and tensorflow flavours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lakemill_udfs.errors import missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import plain_runtime
from lakemill_udfs.models.causes import meaning
from lakemill_udfs.models.fixed_batch import in_batches_of
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.pyfunc_results import to_arrays
from lakemill_udfs.models.signature import is_by_column, signature_specs
from lakemill_udfs.models.tensorflow_runtime import device_of, module, set_threads
from lakemill_udfs.tensors.spec import TensorSpec

SAFE_SUFFIX = ".keras"
SUFFIXES = (SAFE_SUFFIX, ".h5", ".hdf5")

RELEASES_LOCK = False  # predict_on_batch builds its graph at its first call and says nothing of threads

DISTRIBUTIONS: tuple[str, ...] = ("tensorflow",)

OPTIONS: tuple[str, ...] = ()

options, log = plain_runtime.options, plain_runtime.log


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the Keras model."""
    return _loaded(path)


def write(value: Any, folder: Path) -> Path | None:
    """Write a model that is in memory."""
    if plain_runtime.class_root(value) != "keras" or not hasattr(value, "predict_on_batch"):
        return None
    value.save(folder / f"model{SAFE_SUFFIX}")
    return folder / f"model{SAFE_SUFFIX}"


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a Keras file, or an MLflow model that holds one."""
    if path.is_dir():
        flavors = described.get("flavors", {})
        is_keras = "keras" in flavors or flavors.get("tensorflow", {}).get("model_type") == "keras"
        return ModelFiles(path) if is_keras else None
    return ModelFiles(path) if path.suffix in SUFFIXES else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether more is read than Keras' safe mode looks at: HDF5 files, MLflow's modules and pickles."""
    return path.is_dir() or path.suffix != SAFE_SUFFIX


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what MLflow's signature says, or the model's own layers."""
    said = signature_specs(described)
    if any(said) or path.is_dir():  # planning loads no code of an artifact
        return said
    model = _loaded(path)
    return _specs(model.inputs, _input_names(model)), _specs(model.outputs, _output_names(model))


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> KerasModel:
    """Load a model onto a device."""
    return KerasModel(path, spec.inputs, spec.outputs, threads=threads, device=device)


CAUSES = (
    (
        r"Unknown (?:layer|loss|metric|object)[^'\"]*['\"]([\w.>]+)|Could not locate class ['\"](\w+)",
        "it needs {0}, a class of its author's (log it with mlflow.keras and its code)",
    ),
    (r"[Ll]ambda", "it holds a Lambda layer, which is code and is not loaded (keras.layers.Lambda)"),
    (
        r"Unable to (?:synchronously )?open file|File format not supported|not a zip file|file signature not found",
        "it is damaged, cut short, or no Keras file",
    ),
)
"""What Keras says when a file is bad, and what that means."""


def cause(error: Exception, path: Path) -> str:
    """Return why a model does not load, in Keras's terms."""
    return meaning(error, CAUSES)


class KerasModel:
    """One Keras model.

    Args:
        path: The file, or the MLflow model's folder.
        inputs: Its inputs, in the order of its input layers.
        outputs: Its outputs, in the order of its output layers.
        threads: As ``SavedModel``.
        device: As ``SavedModel``.

    Raises:
        ModelError: as ``SavedModel``.
    """

    def __init__(self, path: Path, inputs: Specs, outputs: Specs, *, threads: int = 0, device: str = "auto") -> None:
        set_threads(threads)
        self._device = device_of(device)
        with module().device(self._device):
            self._model = _loaded(path)
        self.inputs, self.outputs = inputs, outputs
        self._is_by_column = path.is_dir() and is_by_column(path)
        self._names = _input_names(self._model)
        self._output_names = [spec.name for spec in outputs] or _output_names(self._model)
        self._predict = foreign(self._model.predict_on_batch)
        first = next((tensor.shape[0] for tensor in self._model.inputs or () if len(tensor.shape)), None)
        self.fixed_batch: int | None = first

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the model's outputs, on the CPU."""
        with module().device(self._device):
            return in_batches_of(self.fixed_batch, inputs, self._run) if self.fixed_batch else self._run(inputs)

    def _run(self, inputs: Arrays) -> Arrays:
        arrays = [inputs[spec.name] for spec in self.inputs] or list(inputs.values())
        if self._is_by_column:
            arrays = [np.stack(arrays, axis=1)]
        result = self._predict(arrays[0] if len(arrays) == 1 else dict(zip(self._names, arrays, strict=True)))
        if isinstance(result, Sequence) and len(result) == len(self._output_names):
            result = dict(zip(self._output_names, result, strict=True))
        return to_arrays(result, self.outputs)


def _loaded(path: Path) -> Any:
    if path.is_dir():
        try:
            import mlflow
        except ImportError as error:
            raise missing_extra("mlflow", "mlflow") from error
        import yaml  # comes with MLflow

        described = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
        flavor = mlflow.keras if "keras" in described["flavors"] else mlflow.tensorflow
        return flavor.load_model(str(path))
    module()  # Keras's default backend; without it Keras's own error would name no extra
    import keras

    return keras.saving.load_model(path, compile=False)  # safe_mode: layers that are code are refused


def _input_names(model: Any) -> list[str]:
    names = [tensor.name for tensor in model.inputs]
    return ["input"] if len(names) == 1 and names[0].startswith("keras_tensor") else names


def _output_names(model: Any) -> list[str]:
    names = list(getattr(model, "output_names", ()))
    count = len(model.outputs)
    return (
        names
        if len(names) == count > 1
        else ["output"]
        if count == 1
        else [f"output_{at}" for at in range(1, count + 1)]
    )


def _specs(tensors: Sequence[Any], names: Sequence[str]) -> Specs:
    return tuple(
        TensorSpec(name, str(tensor.dtype), tuple(tensor.shape)[1:])
        for name, tensor in zip(names, tensors, strict=True)
    )
