"""ONNX files on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.models import Arrays
from lakemill_udfs.tensors.spec import TensorSpec

ONNX_DTYPES = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "string"} | {
    f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


class OnnxModel:
    """One inference session.

    Args:
        path: The ``.onnx`` file; external data beside it is found by ONNX Runtime.
        threads: Threads inside one operator; 0 leaves ONNX Runtime's default, all cores.
        device: ``auto`` takes CUDA where this build of ONNX Runtime has it, else the CPU; ``cpu``; ``cuda``.

    Raises:
        ModelError: ``EXTRA_MISSING`` without onnxruntime, ``DEVICE_MISSING`` if ``cuda`` is asked for and not there,
            ``MODEL_INPUT_TYPE`` if an input is no tensor.
    """

    def __init__(self, path: Path, *, threads: int = 0, device: str = "auto") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra("onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers(device))
        self.provider: str = self._session.get_providers()[0]
        nodes = [node for node in self._session.get_inputs() if node.name not in _initializers(self._session)]
        self.inputs, self.outputs = tuple(map(_spec, nodes)), tuple(map(_spec, self._session.get_outputs()))
        self._without_rows = {node.name for node in nodes if not node.shape}
        first = next((node.shape[0] for node in nodes if node.shape), None)
        self.fixed_batch: int | None = first if isinstance(first, int) else None

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the outputs; rows that differ in an input without a batch axis are given to the graph apart."""
        single = self._without_rows & inputs.keys()
        if not single or len(single) == len(inputs):
            return self._predict_alike(inputs, {})
        values = [inputs[name].tolist() for name in sorted(single)]
        groups: dict[str, list[int]] = {}
        for row, key in enumerate(zip(*values, strict=True)):
            groups.setdefault(repr(key), []).append(row)
        parts = []
        for members in groups.values():
            one = {name: np.asarray(inputs[name][members[0]]) for name in single}
            parts.append(self._predict_alike({name: inputs[name][members] for name in inputs.keys() - single}, one))
        order = np.argsort(np.concatenate([np.array(members) for members in groups.values()]))
        return {spec.name: np.concatenate([part[spec.name] for part in parts])[order] for spec in self.outputs}

    def _predict_alike(self, inputs: Arrays, single: Arrays) -> Arrays:
        """Run rows with one value of each input without rows; a fixed batch size is cut and padded to."""
        if self.fixed_batch is None:
            return self._run(inputs | single)
        rows, size = len(next(iter(inputs.values()))), self.fixed_batch
        parts = []
        for start in range(0, rows, size):
            part = {name: _padded(array[start : start + size], size) for name, array in inputs.items()} | single
            parts.append({name: array[: min(size, rows - start)] for name, array in self._run(part).items()})
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def _run(self, inputs: Arrays) -> Arrays:
        results = self._session.run(None, inputs)
        return {spec.name: np.asarray(value) for spec, value in zip(self.outputs, results, strict=True)}


def providers(device: str) -> list[str]:
    """Return ONNX Runtime's execution providers for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ModelError: ``DEVICE_MISSING`` if ``cuda`` is asked for and this build has none.
    """
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ModelError(
            "DEVICE_MISSING",
            "engine.device is cuda, but this onnxruntime has no CUDA.",
            hint="pip install onnxruntime-gpu",
        )
    return (
        ["CUDAExecutionProvider", "CPUExecutionProvider"] if has_cuda and device != "cpu" else ["CPUExecutionProvider"]
    )


def _initializers(session: Any) -> set[str]:
    return {node.name for node in session.get_overridable_initializers()}


def _spec(node: Any) -> TensorSpec:
    kind = ONNX_DTYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
    if not node.type.startswith("tensor(") or kind is None:
        raise ModelError(
            "MODEL_INPUT_TYPE",
            f"'{node.name}' is a {node.type}; only tensors are supported.",
            hint="export classifiers with zipmap=False",
        )
    return TensorSpec(node.name, kind, tuple(size if isinstance(size, int) else None for size in node.shape[1:]))


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(array)
    return array if not missing else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
