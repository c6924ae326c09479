"""TensorFlow SavedModels, by one of their signatures: folders, zip files, and MLflow's tf2-module flavour."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import plain_runtime
from lakemill_udfs.models.archives import unpack
from lakemill_udfs.models.causes import meaning
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.tensors.spec import TensorSpec

GRAPH = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"

RELEASES_LOCK = True

DISTRIBUTIONS: tuple[str, ...] = ("tensorflow",)

OPTIONS: tuple[str, ...] = ("signature",)
"""``signature``: which of the graph's signatures runs."""

options, native, write, log = plain_runtime.options, plain_runtime.native, plain_runtime.write, plain_runtime.log


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a SavedModel's folder or zip file, or an MLflow model that holds one."""
    if path.is_dir():
        folder = path / str(described.get("flavors", {}).get("tensorflow", {}).get("saved_model_dir", "."))
        return ModelFiles(path) if (folder / GRAPH).is_file() else None
    return ModelFiles(path) if path.suffix == ".zip" and _holds_graph(path) else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return true: the operators of a graph read and write files (``tf.io.write_file``)."""
    return True


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what the signature of the graph says, or MLflow's where there is one."""
    said = signature_specs(described)
    if any(said) and "signature" not in options:
        return said
    model = SavedModel(path, device="cpu", signature=options.get("signature"))
    return model.inputs, model.outputs


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> SavedModel:
    """Load a graph onto a device."""
    wanted = spec.options.get("signature")
    return SavedModel(path, spec.inputs, spec.outputs, threads=threads, device=device, signature=wanted)


CAUSES = (
    (
        r"Op type not registered '(\w+)'",
        "it needs the operator {0}, which this TensorFlow has not (a custom operator?)",
    ),
    (
        r"variables\.(?:index|data)|Unsuccessful TensorSliceReader|tensor bundle",
        "its weights (variables/) are missing or damaged",
    ),
    (
        r"SavedModel file does not exist|Cannot parse file|Error parsing message",
        "its saved_model.pb is missing or damaged",
    ),
)
"""What TensorFlow says when a graph is bad, and what that means."""


def cause(error: Exception, path: Path) -> str:
    """Return why a graph does not load, in TensorFlow's terms."""
    return meaning(error, CAUSES)


class SavedModel:
    """One signature of a graph.

    Args:
        path: The folder, the zip file, or the MLflow model's folder.
        inputs: Its inputs; empty takes the signature's.
        outputs: Its outputs; empty takes the signature's.
        threads: Threads inside one operator, for the whole process; 0 leaves TensorFlow's default.
        device: ``auto`` takes the first GPU where there is one, else the CPU; ``cpu``; ``cuda`` or ``cuda:N``.
        signature: Which of its signatures; None takes ``serving_default``, or the only one.

    Raises:
        ModelError: ``EXTRA_MISSING`` without TensorFlow, ``MODEL_SIGNATURE`` if the graph has no such signature,
            ``DEVICE_MISSING`` if a device is asked for and not there.
    """

    def __init__(
        self,
        path: Path,
        inputs: Specs = (),
        outputs: Specs = (),
        *,
        threads: int = 0,
        device: str = "auto",
        signature: str | None = None,
    ) -> None:
        tensorflow = module()
        set_threads(threads)
        self._constant = tensorflow.constant
        self._device = device_of(device)
        with tensorflow.device(self._device):
            self._graph = _loaded(path)  # its variables live as long as it does
        chosen = _signature(self._graph.signatures, path.name, signature)
        self._run = foreign(chosen)
        wanted = chosen.structured_input_signature[1]
        self._dtypes = {name: spec.dtype for name, spec in wanted.items()}
        self._names = dict(zip((spec.name for spec in inputs), wanted, strict=False)) if _unlike(inputs, wanted) else {}
        self.inputs = inputs or _specs(wanted)
        self.outputs = outputs or _specs(chosen.structured_outputs)

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the signature's outputs, on the CPU."""
        with module().device(self._device):
            given = {self._names.get(name, name): array for name, array in inputs.items()}
            tensors = {name: self._constant(array, dtype=self._dtypes.get(name)) for name, array in given.items()}
            results = {str(name): value.numpy() for name, value in self._run(**tensors).items()}
        if len(results) == 1 and len(self.outputs) == 1:
            return {self.outputs[0].name: _text(next(iter(results.values())))}
        return {name: _text(array) for name, array in results.items()}


def module() -> Any:
    """Return TensorFlow.

    Raises:
        ModelError: ``EXTRA_MISSING`` without it.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise missing_extra("tensorflow", "tensorflow") from error
    return tensorflow


def set_threads(threads: int) -> None:
    """Pin the threads inside one operator; a process that has run TensorFlow already keeps what it has."""
    if not threads or module().config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        module().config.threading.set_intra_op_parallelism_threads(threads)
        module().config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # "cannot be modified after initialization"
        return


def device_of(device: str) -> str:
    """Return TensorFlow's name of a device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: ``DEVICE_MISSING`` if CUDA is asked for and not there.
    """
    count = len(module().config.list_physical_devices("GPU")) if device != "cpu" else 0
    if device == "auto":
        return "/GPU:0" if count else "/CPU:0"
    at = int(device.partition(":")[2] or 0)
    if device.startswith("cuda") and at >= count:
        raise ModelError(
            "DEVICE_MISSING",
            f"engine.device is {device}, but TensorFlow sees {count} GPUs here.",
            hint="engine: {device: cpu}, or install tensorflow[and-cuda].",
        )
    return f"/GPU:{at}" if device.startswith("cuda") else "/CPU:0"


def _holds_graph(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == GRAPH for name in archive.namelist())


def _loaded(path: Path) -> Any:
    load_graph = module().saved_model.load
    if path.is_dir():
        return load_graph(str(next(file.parent for file in sorted(path.rglob(GRAPH)))))
    with tempfile.TemporaryDirectory(prefix="lakemill-savedmodel-") as folder:
        unpack(path, Path(folder))
        return load_graph(str(next(file.parent for file in sorted(Path(folder).rglob(GRAPH)))))


def _signature(signatures: Mapping[str, Any], model: str, name: str | None) -> Any:
    wanted = name or DEFAULT_SIGNATURE
    if wanted in signatures:
        return signatures[wanted]
    if name is None and len(signatures) == 1:
        return next(iter(signatures.values()))
    raise ModelError(
        "MODEL_SIGNATURE",
        f"the SavedModel '{model}' has no signature '{wanted}'; it has: {', '.join(signatures) or 'none'}.",
        hint="options: {signature: NAME} chooses one; tf.saved_model.save(..., signatures={...}) writes them.",
    )


def _unlike(inputs: Specs, wanted: Mapping[str, Any]) -> bool:
    """Return whether MLflow's signature has names of its own for as many inputs: they are taken in their order."""
    return len(inputs) == len(wanted) and {spec.name for spec in inputs} != set(wanted)


def _specs(tensors: Mapping[str, Any]) -> Specs:
    """Return the specs of a signature's tensors; none if the rank of one is unknown, so that it must be declared."""
    if any(tensor.shape.rank is None for tensor in tensors.values()):
        return ()
    return tuple(
        TensorSpec(name, _dtype(tensor.dtype.name), tuple(tensor.shape.as_list()[1:]))
        for name, tensor in tensors.items()
    )


def _dtype(name: str) -> str:
    return "float32" if name == "bfloat16" else name


def _text(array: Any) -> Any:
    """Return strings as Python's: TensorFlow gives bytes; half floats that numpy has not as float32."""
    if array.dtype.name == "bfloat16":
        return array.astype("float32")
    if array.dtype.kind not in "OS":
        return array
    decoded = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in array.ravel().tolist()]
    result = array.astype(object).ravel()
    result[:] = decoded
    return result.reshape(array.shape)
