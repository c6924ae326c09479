"""ONNX files on ONNX Runtime."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.models import plain_runtime
from lakemill_udfs.models.fixed_batch import in_batches_of
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.onnx_values import has_bfloat16, input_spec, output_of, with_float_edges

RELEASES_LOCK = True

DISTRIBUTIONS: tuple[str, ...] = ("onnxruntime",)

OPTIONS: tuple[str, ...] = ()

options = plain_runtime.options


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return an ``.onnx`` file, or the graph of an MLflow model of the onnx flavour, with its external weights."""
    file = path
    if path.is_dir():
        named = described.get("flavors", {}).get("onnx", {}).get("data")
        graphs = [path / named] if named else [] if "flavors" in described else sorted(path.glob("*.onnx"))
        if len(graphs) != 1:
            return None
        file = graphs[0]
    return ModelFiles(file, external_weights(file)) if file.suffix == ".onnx" and file.is_file() else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return false: a graph holds operators and numbers."""
    return False


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return the inputs and outputs that the graph says."""
    model = OnnxModel(path, device="cpu")
    return model.inputs, model.outputs


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> OnnxModel:
    """Load a graph."""
    return OnnxModel(path, threads=threads, device=device)


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the graph with its weights."""
    import onnx

    return onnx.load(str(path))


def write(value: Any, folder: Path) -> Path | None:
    """Write a graph that is in memory."""
    if plain_runtime.class_root(value) != "onnx":
        return None
    import onnx

    onnx.save(value, str(folder / "model.onnx"))
    return folder / "model.onnx"


def log(value: Any, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Log a graph through MLflow's onnx flavor."""
    import mlflow.onnx

    return mlflow.onnx.log_model(value, **arguments)


CAUSES = (
    (
        r"[Uu]nsupported model IR version: (\d+), max supported IR version: (\d+)",
        "it is of IR version {0}, this ONNX Runtime reads up to {1} (install a newer one, or export for an older)",
    ),
    (
        r"Opset (\d+) is under development.*till opset (\d+)|[Oo]pset (\d+).*up to (\d+)",
        "it uses opset {0}, this ONNX Runtime knows up to {1} (install a newer one, or export for an older)",
    ),
    (
        r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op|No Op registered for (\S+)",
        "it needs the operator {0}, which this ONNX Runtime has not (a custom operator, or a newer one)",
    ),
    (
        r"[Ee]xternal (?:data|initializer)|GetExtDataFromTensorProto",
        "its external weights are missing, damaged or outside its folder",
    ),
    (r"Protobuf parsing failed|INVALID_PROTOBUF", "it is no ONNX file, or a damaged one"),
)
"""What ONNX Runtime says when a file is bad, and what that means; such messages speak of the graph, never of rows."""


def cause(error: Exception, path: Path) -> str:
    """Return why a graph does not load, in ONNX's terms."""
    text = str(error)
    for pattern, meaning in CAUSES:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return meaning.format(*(group for group in found.groups() if group is not None))
    return " ".join(text.replace(str(path.parent), "").split())[:300]


def external_weights(file: Path) -> tuple[str, ...]:
    """Return the files beside a graph that hold its weights, relative to its folder.

    Raises:
        ModelError: ``MODEL_PATH`` if one is outside the folder, ``EXTRA_MISSING`` without the module ``onnx``.
    """
    if not _holds(file, b"location"):  # the key under which a tensor names its file: most graphs are not read twice
        return ()
    try:
        import onnx
        from onnx.external_data_helper import _get_all_tensors, uses_external_data  # all: subgraphs' too
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    try:
        graph = onnx.load(str(file), load_external_data=False)
    except Exception:
        return ()
    names = {
        entry.value
        for tensor in _get_all_tensors(graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ModelError(
                "MODEL_PATH",
                f"the graph '{file.name}' names weights outside its folder.",
                hint="export it again with its external data beside it.",
            )
    return tuple(sorted(names))


def _holds(file: Path, text: bytes) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


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
        chosen = providers(device)
        # Where there is nothing else to run on, a "fallback" only prints the damaged file's words to stdout, and fails.
        others = {"enable_fallback": int(len(chosen) > 1)}
        self._session = onnxruntime.InferenceSession(str(path), options, providers=chosen, **others)
        if has_bfloat16([*self._session.get_inputs(), *self._session.get_outputs()]):
            self._session = onnxruntime.InferenceSession(with_float_edges(path), options, providers=chosen, **others)
        self.provider: str = self._session.get_providers()[0]
        nodes = [node for node in self._session.get_inputs() if node.name not in _initializers(self._session)]
        self._outputs = [output_of(node, path) for node in self._session.get_outputs()]
        self.inputs = tuple(map(input_spec, nodes))
        self.outputs = tuple(spec for output in self._outputs for spec in output.specs)
        self._optional = {node.name: None for node in nodes if node.type.startswith("optional(")}
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
        return in_batches_of(self.fixed_batch, inputs, lambda part: self._run(part | single))

    def _run(self, inputs: Arrays) -> Arrays:
        results = self._session.run(None, self._optional | inputs)
        named: Arrays = {}
        for output, value in zip(self._outputs, results, strict=True):
            named |= output.tensors(value)
        return named


def providers(device: str) -> list[Any]:
    """Return ONNX Runtime's execution providers for ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ModelError: ``DEVICE_MISSING`` if ``cuda`` is asked for and this build has none.
    """
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise ModelError(
            "DEVICE_MISSING",
            f"engine.device is {device}, but this onnxruntime has no CUDA.",
            hint="pip install onnxruntime-gpu",
        )
    if not has_cuda or device == "cpu":
        return ["CPUExecutionProvider"]
    number = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]


def _initializers(session: Any) -> set[str]:
    return {node.name for node in session.get_overridable_initializers()}
