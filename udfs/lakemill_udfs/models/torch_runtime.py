"""PyTorch: TorchScript files, exported programs, and MLflow models of the pytorch flavour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import plain_runtime
from lakemill_udfs.models.causes import meaning
from lakemill_udfs.models.fixed_batch import in_batches_of
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.pyfunc_results import to_arrays
from lakemill_udfs.models.signature import is_by_column, signature_specs
from lakemill_udfs.tensors.spec import TensorSpec

if TYPE_CHECKING:
    import torch

SCRIPT_SUFFIXES = (".pt", ".pth")
EXPORTED_SUFFIX = ".pt2"

RELEASES_LOCK = True

DISTRIBUTIONS: tuple[str, ...] = ("torch",)

OPTIONS: tuple[str, ...] = ("precision", "channels_last")
"""``precision``, one of ``PRECISIONS``; ``channels_last``: whether images lie with their channels together."""

PRECISIONS = ("float32", "float16", "bfloat16")
"""What weights and numbers are while a network runs; what it gives is float32 whichever it was."""

log = plain_runtime.log


def options(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given.

    Raises:
        ModelError: ``MODEL_OPTION`` for a precision that is none of ``PRECISIONS``.
    """
    precision = given.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise ModelError("MODEL_OPTION", f"precision is one of {', '.join(PRECISIONS)}; got '{precision}'.")
    return dict(given)


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the exported program, the scripted network or the module."""
    return _torch().export.load(str(path)) if path.suffix == EXPORTED_SUFFIX else _loaded(path, "cpu")


def write(value: Any, folder: Path) -> Path | None:
    """Write a scripted network or an exported program that is in memory; a module alone does not say its inputs."""
    if plain_runtime.class_root(value) != "torch":
        return None
    torch = _torch()
    if isinstance(value, torch.export.ExportedProgram):
        torch.export.save(value, str(folder / "model.pt2"))
        return folder / "model.pt2"
    if not isinstance(value, torch.jit.ScriptModule):
        return None
    torch.jit.save(value, str(folder / "model.pt"))
    return folder / "model.pt"


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a TorchScript file, an exported program, or an MLflow model of the pytorch flavour."""
    if path.is_dir():
        return ModelFiles(path) if "pytorch" in described.get("flavors", {}) else None
    return ModelFiles(path) if path.suffix in (*SCRIPT_SUFFIXES, EXPORTED_SUFFIX) else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether there is a pickle: in an MLflow model, and in an exported program; TorchScript has none."""
    return path.is_dir() or path.suffix == EXPORTED_SUFFIX


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what the signature says, or what an exported program's graph does; TorchScript says names alone."""
    if path.is_dir():
        return signature_specs(described)
    if path.suffix == EXPORTED_SUFFIX:
        return _exported_specs(_torch().export.load(str(path)))
    return (), ()


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> TorchModel:
    """Load a network onto a device."""
    return TorchModel(path, spec.inputs, spec.outputs, threads=threads, device=device, options=spec.options)


CAUSES = (
    (
        r"constants\.pkl|Couldn't find .*version",
        "it is no TorchScript: save it with torch.jit.save or torch.export.save",
    ),
    (r"PytorchStreamReader failed|unexpected EOF|invalid header or archive|not a ZIP archive", "it is damaged or cut"),
    (r"Unknown builtin op: ([\w:.]+)", "it needs the operator {0}, which this PyTorch has not"),
    (r"Weights only load failed", "it is a pickle of weights; export the network: torch.jit.save or torch.export.save"),
)
"""What PyTorch says when a file is bad, and what that means."""


def cause(error: Exception, path: Path) -> str:
    """Return why a network does not load, in PyTorch's terms."""
    return meaning(error, CAUSES)


class TorchModel:
    """One network in inference mode.

    Its inputs are given by position, in the order of their specs. Of several outputs a tuple or list is called
    ``output_1``, ``output_2``... (``output`` if it is one), or as the specs are called in their order.

    Args:
        path: The file, or the MLflow model's folder.
        inputs: Its inputs.
        outputs: Its outputs; empty if nothing says them.
        threads: Threads inside one operator, for the whole process; 0 leaves PyTorch's default.
        device: ``auto`` takes CUDA where it is there, else the CPU; ``cpu``; ``cuda`` or ``cuda:N``.
        options: As ``OPTIONS`` names them.

    Raises:
        ModelError: ``EXTRA_MISSING`` without PyTorch, ``DEVICE_MISSING`` if a device is asked for and not there,
            ``MODEL_OPTION`` for an option of an exported program, whose types and layout are fixed.
    """

    def __init__(
        self,
        path: Path,
        inputs: Specs,
        outputs: Specs,
        *,
        threads: int = 0,
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._torch = _torch()
        given = options or {}
        self._is_channels_last = bool(given.get("channels_last"))
        self._half = given.get("precision") if given.get("precision") != PRECISIONS[0] else None
        if threads:
            self._torch.set_num_threads(threads)
        self.device = device_of(device)
        self.inputs, self.outputs = inputs, outputs
        self._is_by_column = path.is_dir() and is_by_column(path)
        network = _loaded(path, self.device)
        self.fixed_batch = _fixed_batch(network)
        self._network = foreign(self._laid_out(network))

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the network's outputs, on the CPU."""
        return in_batches_of(self.fixed_batch, inputs, self._run) if self.fixed_batch else self._run(inputs)

    def _run(self, inputs: Arrays) -> Arrays:
        names = [spec.name for spec in self.inputs if spec.name in inputs] or list(inputs)
        arrays = [inputs[name] for name in names]
        if self._is_by_column:  # MLflow gives such a network its columns side by side
            arrays = [np.stack(arrays, axis=1).astype(np.float32, copy=False)]
        with self._torch.inference_mode():
            result = self._network(*map(self._tensor, arrays))
            return to_arrays(_arrays(result, self.outputs, is_half=self._half is not None), self.outputs)

    def _laid_out(self, network: Any) -> Any:
        if not (self._half or self._is_channels_last):
            return network
        if isinstance(network, self._torch.fx.GraphModule):
            raise ModelError(
                "MODEL_OPTION",
                "an exported program has the types and the layout that it was exported with.",
                hint="export it so, or give the network as TorchScript.",
            )
        if self._is_channels_last:
            network = network.to(memory_format=self._torch.channels_last)
        return network.to(getattr(self._torch, self._half)) if self._half else network

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        # PyTorch has no read-only tensors: a network that writes into its input must not write into the table's buffer
        own = array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C")
        tensor = self._torch.from_numpy(own).to(self.device)
        if self._half and tensor.is_floating_point():
            tensor = tensor.to(getattr(self._torch, self._half))
        is_image = self._is_channels_last and tensor.ndim == 4
        return tensor.contiguous(memory_format=self._torch.channels_last) if is_image else tensor


def device_of(device: str) -> str:
    """Return PyTorch's name of a device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: ``DEVICE_MISSING`` if CUDA is asked for and not there.
    """
    torch = _torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise ModelError(
            "DEVICE_MISSING",
            f"engine.device is {device}, but PyTorch sees {count} CUDA devices here.",
            hint="engine: {device: cpu}, or install PyTorch's build for this machine's driver.",
        )
    return device


def _loaded(path: Path, device: str) -> Any:
    torch = _torch()
    if path.is_dir():
        try:
            import mlflow.pytorch
        except ImportError as error:
            raise missing_extra("mlflow", "mlflow") from error
        network = mlflow.pytorch.load_model(str(path), map_location=device)
    elif path.suffix == EXPORTED_SUFFIX:
        network = torch.export.load(str(path)).module()
    else:
        network = torch.jit.load(str(path), map_location=device)
    is_exported = isinstance(network, torch.fx.GraphModule)  # for inference already: it takes no eval()
    return network.to(device) if is_exported else network.to(device).eval()


def _fixed_batch(network: Any) -> int | None:
    """Return the batch size with which an exported program was traced, if it takes no other."""
    graph = getattr(network, "graph", None)
    nodes = getattr(graph, "nodes", None)
    if not isinstance(network, _torch().fx.GraphModule) or nodes is None:
        return None
    shapes = [
        tuple(node.meta["val"].shape)
        for node in nodes
        if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape")
    ]
    first = next((shape[0] for shape in shapes if shape), None)
    return first if isinstance(first, int) else None


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "torch") from error
    return torch


def _arrays(result: Any, outputs: Specs, *, is_half: bool) -> Any:
    if isinstance(result, Mapping):
        return {str(name): _array(value, is_half=is_half) for name, value in result.items()}
    if isinstance(result, Sequence):
        names = [spec.name for spec in outputs]
        if len(names) != len(result):
            names = [f"output_{at}" for at in range(1, len(result) + 1)] if len(result) > 1 else ["output"]
        return dict(zip(names, (_array(value, is_half=is_half) for value in result), strict=True))
    return _array(result, is_half=is_half)


def _array(value: Any, *, is_half: bool) -> NDArray[Any]:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    widened = ("torch.bfloat16", "torch.float16") if is_half else ("torch.bfloat16",)
    array: NDArray[Any] = (tensor.float() if str(tensor.dtype) in widened else tensor).numpy()
    return array


def _exported_specs(program: Any) -> tuple[Specs, Specs]:
    """Return the inputs and outputs of an exported program; a symbolic size is a free dimension."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    users = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    made = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    outputs = [f"output_{at}" for at in range(1, len(made) + 1)] if len(made) > 1 else ["output"]
    return (
        tuple(_spec(name, nodes[name]) for name in users),
        tuple(_spec(name, nodes[node]) for name, node in zip(outputs, made, strict=True)),
    )


def _spec(name: str, value: Any) -> TensorSpec:
    dtype = str(value.dtype).removeprefix("torch.")
    sizes = tuple(size if isinstance(size, int) else None for size in tuple(value.shape)[1:])
    return TensorSpec(name, "float32" if dtype == "bfloat16" else dtype, sizes)
