"""The smallest ONNX model: where it runs, what is measured is the way to it and back."""

from __future__ import annotations

from pathlib import Path


def write_linear_model(path: Path, source: tuple[str, int], target: tuple[str, int]) -> Path:
    """Write ``target (n, outputs) = source (n, inputs) @ ones``, float32.

    Args:
        path: Of the file.
        source: Name and size of the input.
        target: Name and size of the output.

    Returns:
        The path.
    """
    import onnx
    from onnx import TensorProto, helper

    (given, inputs), (result, outputs) = source, target
    graph = helper.make_graph(
        [helper.make_node("MatMul", [given, "weights"], [result])],
        "linear",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", outputs])],
        [helper.make_tensor("weights", TensorProto.FLOAT, (inputs, outputs), [1.0] * (inputs * outputs))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path
