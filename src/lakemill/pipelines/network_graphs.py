"""Networks of PyTorch and Keras as ONNX graphs, with the names of tensors that the model has here."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.tensors.spec import TensorSpec

TORCH_OPSET, KERAS_OPSET = 18, 17

FREE_SIZE = 8
"""What stands for an axis of any size while a network is traced."""


def torch_graph(network: Any, spec: ModelSpec) -> Any:
    """Return the graph of an exported program, a module, or a scripted network.

    A program keeps the axes that it was exported with. Modules and scripted networks take any number of rows, and any
    size where the input has a free one.
    """
    import onnx
    import torch

    names = {"input_names": [one.name for one in spec.inputs], "output_names": [one.name for one in spec.outputs]}
    arguments = tuple(torch.from_numpy(_made_up(one)) for one in spec.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of its own parts, and of scripts that will go one day
        if isinstance(network, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            axes = {one.name: _free(one) for one in spec.inputs}
            torch.onnx.export(
                network, arguments, buffer, dynamo=False, opset_version=TORCH_OPSET, dynamic_axes=axes, **names
            )
            return onnx.load_from_string(buffer.getvalue())
        if not isinstance(network, torch.export.ExportedProgram):
            dynamic = torch.export.Dim.DYNAMIC
            shapes = tuple(dict.fromkeys(_free(one), dynamic) for one in spec.inputs)
            network = torch.export.export(network, arguments, dynamic_shapes=shapes)
        program = torch.onnx.export(network, dynamo=True, opset_version=TORCH_OPSET, verbose=False, **names)
        return program.model_proto


def keras_graph(network: Any, spec: ModelSpec) -> Any:
    """Return the graph of a Keras model on TensorFlow."""
    import tensorflow
    import tf2onnx

    outputs = [one.name for one in spec.outputs]
    signature = [tensorflow.TensorSpec((None, *one.shape), one.dtype, name=one.name) for one in spec.inputs]

    def call(*arrays: Any) -> dict[str, Any]:
        results = network(arrays[0] if len(arrays) == 1 else list(arrays), training=False)
        if isinstance(results, dict):
            return results
        return dict(zip(outputs, results if isinstance(results, list | tuple) else [results], strict=True))

    function = tensorflow.function(call, input_signature=signature)
    graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=KERAS_OPSET)
    return graph


def _made_up(spec: TensorSpec) -> np.ndarray[Any, Any]:
    return np.zeros((2, *(size or FREE_SIZE for size in spec.shape)), spec.numpy_dtype)


def _free(spec: TensorSpec) -> list[int]:
    return [0, *(axis for axis, size in enumerate(spec.shape, 1) if size is None)]
