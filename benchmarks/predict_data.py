"""What the predict benchmark works on: photographs, their Delta table and a network, all made from seeds."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lakemill import IngestConfig, ingest_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SMALLEST_BYTES, LARGEST_BYTES = 50_000, 200_000


def write_photos(folder: Path, count: int) -> None:
    """Write JPEGs of 50 to 200 KB: crops of scikit-learn's sample photographs (640x427) in several qualities.

    Args:
        folder: Is made; photographs that are there already are kept, as they would come out the same.
        count: How many.
    """
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True, exist_ok=True)
    samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        file = folder / f"{number:05d}.jpg"
        if not file.exists():
            file.write_bytes(_photo(samples[number % len(samples)], np.random.default_rng(number)))


def _photo(sample: Image.Image, random: np.random.Generator) -> bytes:
    while True:
        share = random.uniform(0.7, 1)
        width, height = int(sample.width * share), int(sample.height * share)
        left, top = int(random.integers(sample.width - width + 1)), int(random.integers(sample.height - height + 1))
        encoded = io.BytesIO()
        quality = int(random.integers(90, 98))
        sample.crop((left, top, left + width, top + height)).save(encoded, "JPEG", quality=quality)
        if SMALLEST_BYTES <= encoded.tell() <= LARGEST_BYTES:
            return encoded.getvalue()


def ingest_photos(folder: Path, table: Path, spark: SparkSession) -> None:
    """Bring the photographs into a Delta table, as ``lakemill ingest`` does."""
    source = {"path": str(folder), "glob": "*.jpg", "label": None}
    ingest_images(IngestConfig.load(source=source, output={"table": str(table)}), spark)


def write_network(path: Path) -> None:
    """Write SqueezeNet 1.0 with a free batch size and random weights, ``data_0 (n, 3, 224, 224) -> logits (n, 1000)``.

    The onnx package's own copy has a batch size of 1 and the same number in all its weights, so that all classes get
    the same score and a comparison of results shows nothing.
    """
    import onnx
    from onnx import helper, numpy_helper

    network = onnx.load(str(files("onnx") / "backend/test/data/light/light_squeezenet.onnx"))
    graph, random = network.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [
        numpy_helper.from_array(_weights(tuple(shapes[node.input[0]]), random), node.output[0])
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    ]
    nodes = [node for node in graph.node if node.op_type not in ("ConstantOfShape", "Softmax")]
    nodes.append(helper.make_node("Flatten", [nodes[-1].output[0]], ["logits"]))
    inputs = [helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, ["n", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1000])]
    kept = [tensor for tensor in graph.initializer if any(tensor.name in node.input for node in nodes)]
    graph = helper.make_graph(nodes, "squeezenet", inputs, outputs, kept + weights)
    onnx.save(helper.make_model(graph, opset_imports=network.opset_import, ir_version=9), str(path))


def write_large_network(path: Path) -> None:
    """Write ResNet-50 with a free batch size and random weights, ``data_0 (n, 3, 224, 224) -> logits (n, 1000)``."""
    import onnx
    from onnx import helper, numpy_helper

    network = onnx.load(str(files("onnx") / "backend/test/data/light/light_resnet50.onnx"))
    graph, random = network.graph, np.random.default_rng(0)
    shapes = {one.name: [size.dim_value for size in one.type.tensor_type.shape.dim] for one in graph.input}
    shapes |= {
        tensor.name.removesuffix("__SHAPE"): numpy_helper.to_array(tensor).tolist()
        for tensor in graph.initializer
        if tensor.name.endswith("__SHAPE")
    }
    weights = []
    for node in graph.node:
        for at, name in enumerate(node.input[1:]) if node.op_type in ("Conv", "Gemm", "BatchNormalization") else ():
            constant = (0.5, 0.0, 0.0, 1.0)[at]  # scale, offset, mean and variance of a normalisation
            is_norm, shape = node.op_type == "BatchNormalization", tuple(shapes[name])
            values = np.full(shape, constant, np.float32) if is_norm else _weights(shape, random)
            weights.append(numpy_helper.from_array(values, name))
    nodes = [node for node in graph.node if node.op_type not in ("ConstantOfShape", "Softmax", "Reshape")]
    nodes[-1].input[0] = "flat"
    nodes.insert(-1, helper.make_node("Flatten", [nodes[-2].output[0]], ["flat"]))
    nodes[-1].output[0] = "logits"
    nodes[0].input[0] = "data_0"
    inputs = [helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, ["n", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1000])]
    graph = helper.make_graph(nodes, "resnet50", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=network.opset_import, ir_version=9), str(path))


def _weights(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw a layer's weights so that the size of activations stays about the same from layer to layer."""
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 10_000
    return random.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)
