"""What an ONNX graph takes and gives besides plain tensors: optional inputs, classifiers' maps, sequences, bfloat16."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.models.model import Arrays, Specs
from lakemill_udfs.tensors.ragged import from_rows, stacked
from lakemill_udfs.tensors.spec import TensorSpec

ONNX_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "float32",
    "bool": "bool",
    "string": "string",
} | {f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
"""A tensor's dtype; bfloat16, which numpy has not, goes in and comes out as float32."""

TENSOR = re.compile(r"(optional\()?tensor\((\w+)\)+")
MAPS = re.compile(r"seq\(map\((?:int64|string),tensor\((\w+)\)\)\)")
SEQUENCE = re.compile(r"seq\(tensor\((\w+)\)\)")


@dataclass(frozen=True)
class Output:
    """One output of a graph.

    Args:
        specs: The tensors that it becomes.
        tensors: Makes them of what the session gives.
    """

    specs: Specs
    tensors: Callable[[Any], Arrays]


def input_spec(node: Any) -> TensorSpec:
    """Return the tensor that feeds an input; an optional one may be left out.

    Raises:
        ModelError: ``MODEL_INPUT_TYPE`` for anything but a tensor.
    """
    found = TENSOR.fullmatch(node.type)
    if found is None or found[2] not in ONNX_DTYPES:
        raise _unknown(node)
    return TensorSpec(node.name, ONNX_DTYPES[found[2]], _sizes(node.shape), nullable=found[1] is not None)


def output_of(node: Any, path: Path) -> Output:
    """Return what an output becomes.

    Raises:
        ModelError: ``MODEL_INPUT_TYPE`` for a type that no tensors can hold.
    """
    tensor, maps, sequence = (pattern.fullmatch(node.type) for pattern in (TENSOR, MAPS, SEQUENCE))
    if tensor is not None and tensor[2] in ONNX_DTYPES:
        spec = TensorSpec(node.name, ONNX_DTYPES[tensor[2]], _sizes(node.shape))
        return Output((spec,), lambda value: {spec.name: np.asarray(value)})
    if maps is not None:
        return _of_maps(node.name, ONNX_DTYPES[maps[1]], _classes(path, node.name))
    if sequence is not None:
        return _of_sequence(TensorSpec(node.name, ONNX_DTYPES[sequence[1]], _rank(path, node.name)))
    raise _unknown(node)


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape[1:])


def _of_maps(name: str, dtype: str, classes: list[Any]) -> Output:
    """Return one column for each class of a classifier's map."""
    specs = tuple(TensorSpec(f"{name}_{label}", dtype) for label in classes)

    def tensors(rows: Any) -> Arrays:
        return {
            spec.name: np.array([row[label] for row in rows], spec.numpy_dtype)
            for spec, label in zip(specs, classes, strict=True)
        }

    return Output(specs, tensors)


def _of_sequence(spec: TensorSpec) -> Output:
    """Return a sequence with one tensor a row as rows of different size."""

    def tensors(rows: Any) -> Arrays:
        cells = [np.asarray(row) for row in rows]
        return {spec.name: stacked(cells) if spec.shape else from_rows([cell[()] for cell in cells])}

    return Output((spec,), tensors)


def _graph(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    return onnx.load(str(path), load_external_data=False)


def _classes(path: Path, output: str) -> list[Any]:
    for node in _graph(path).graph.node:
        if node.op_type == "ZipMap" and output in node.output:
            return [
                label.decode() if isinstance(label, bytes) else int(label)
                for attribute in node.attribute
                for label in (*attribute.ints, *attribute.strings)
            ]
    raise ModelError(
        "MODEL_INPUT_TYPE",
        f"the output '{output}' is a sequence of maps, and the graph does not say their keys.",
        hint="export classifiers with zipmap=False",
    )


def _rank(path: Path, output: str) -> tuple[None, ...]:
    (found,) = (one for one in _graph(path).graph.output if one.name == output)
    return (None,) * len(found.type.sequence_type.elem_type.tensor_type.shape.dim)


def _unknown(node: Any) -> ModelError:
    return ModelError(
        "MODEL_INPUT_TYPE",
        f"'{node.name}' is a {node.type}, which no tensor can hold.",
        hint="export the graph with tensors.",
    )


def has_bfloat16(nodes: list[Any]) -> bool:
    """Return whether one of a session's inputs or outputs is of bfloat16."""
    return any("bfloat16" in node.type for node in nodes)


def with_float_edges(path: Path) -> bytes:
    """Return a graph whose inputs and outputs of bfloat16 are float32, converted inside."""
    import onnx
    from onnx import TensorProto, helper

    graph = onnx.load(str(path))
    narrow = TensorProto.BFLOAT16
    casts = []
    for value in graph.graph.input:
        if value.type.tensor_type.elem_type == narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            inside = f"{value.name}_as_bfloat16"
            for node in graph.graph.node:
                node.input[:] = [inside if name == value.name else name for name in node.input]
            casts.append(helper.make_node("Cast", [value.name], [inside], to=narrow))
    for at, node in enumerate(casts):
        graph.graph.node.insert(at, node)
    for value in graph.graph.output:
        if value.type.tensor_type.elem_type == narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            inside = f"{value.name}_as_bfloat16"
            for node in graph.graph.node:
                node.output[:] = [inside if name == value.name else name for name in node.output]
                node.input[:] = [inside if name == value.name else name for name in node.input]
            graph.graph.node.append(helper.make_node("Cast", [inside], [value.name], to=TensorProto.FLOAT))
    return bytes(graph.SerializeToString())
