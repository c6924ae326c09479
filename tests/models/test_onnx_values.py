"""ONNX graphs with every kind of input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from lakemill import ModelStep, Pipeline
from lakemill.config.predict import EngineConfig
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.onnx_runtime import providers
from lakemill_udfs.tensors.spec import TensorSpec

KINDS = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
} | {
    f"{sign}int{bits}": getattr(TensorProto, f"{sign}int{bits}".upper())
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def saved(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], values: Any = (), opset: int = 18
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, values)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def tensor(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


@pytest.mark.parametrize("dtype", KINDS)
def test_every_dtype_goes_in_and_comes_out(tmp_path: Path, dtype: str) -> None:
    kind = KINDS[dtype]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, [tensor("x", kind, "n", 2)], [tensor("y", kind, "n", 2)])
    values = [["a", "b"], ["c", ""]] if dtype == "string" else np.array([[0, 1], [1, 0]], dtype)
    given = np.array(values, object) if dtype == "string" else values
    result = Pipeline((ModelStep(path),)).infer({"x": given})["out.y"]
    assert np.array(result).tolist() == np.array(values).tolist()


def test_bfloat16_goes_in_and_comes_out_as_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["y"], to=TensorProto.BFLOAT16),
    ]
    kind = TensorProto.BFLOAT16
    path = saved(tmp_path / "m.onnx", nodes, [tensor("x", kind, "n", 2)], [tensor("y", kind, "n", 2)])
    result = Pipeline((ModelStep(path),)).infer({"x": np.array([[1.0, 1.001]], "float32")})
    assert np.array(result["out.y"]).tolist() == [[2.0, 2.0]], "1.001 is 1.0 in bfloat16"


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]])
def test_a_classifiers_maps_become_columns(tmp_path: Path, labels: list[Any]) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).random((20, 3)).astype("float32")
    model = LogisticRegression().fit(x, np.array(labels)[(x[:, 0] > 0.5).astype(int)])
    graph = to_onnx(model, x[:1])  # with zipmap, as converters do by themselves
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    pipeline = Pipeline((ModelStep(str(tmp_path / "m.onnx")),))
    result = pipeline.infer(pa.table({"X": list(x)}), dataset="out")
    assert result.column_names == ["out.output_label", *(f"out.output_probability_{label}" for label in labels)]
    found = np.stack([result[f"out.output_probability_{label}"].to_numpy() for label in labels], axis=1)
    np.testing.assert_allclose(found, model.predict_proba(x), rtol=1e-5)
    assert result["out.output_label"].to_pylist() == model.predict(x).tolist()


def test_a_sequence_is_one_tensor_a_row(tmp_path: Path) -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0, keepdims=0)]
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2])
    path = saved(tmp_path / "m.onnx", nodes, [tensor("x", TensorProto.FLOAT, "n", 2)], [output])
    result = Pipeline((ModelStep(path),)).infer({"x": np.array([[1, 2], [3, 4], [5, 6]], "float32")})
    assert np.array(result["out.y"]).tolist() == [[1, 2], [3, 4], [5, 6]]


def optional_graph(path: Path) -> Path:
    """Save a graph that adds ``more``, if it is given."""
    kind = TensorProto.FLOAT
    made = helper.make_graph(
        [helper.make_node("OptionalGetElement", ["more"], ["m"]), helper.make_node("Add", ["x", "m"], ["there"])],
        "there",
        [],
        [tensor("there", kind, "n")],
    )
    missing = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["gone"])], "gone", [], [tensor("gone", kind, "n")]
    )
    nodes = [
        helper.make_node("OptionalHasElement", ["more"], ["has"]),
        helper.make_node("If", ["has"], ["y"], then_branch=made, else_branch=missing),
    ]
    inner = helper.make_tensor_type_proto(kind, ["n"])
    more = helper.make_value_info("more", helper.make_optional_type_proto(inner))
    return saved(path, nodes, [tensor("x", kind, "n"), more], [tensor("y", kind, "n")])


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    pipeline = Pipeline((ModelStep(optional_graph(tmp_path / "m.onnx")),))
    x = np.array([1, 2], "float32")
    assert pipeline.infer({"x": x, "more": x * 10})["out.y"] == [11, 22]
    assert pipeline.resolve().models[0].inputs[1] == TensorSpec("more", "float32", nullable=True)
    assert Pipeline(pipeline.steps).infer({"x": x})["out.y"] == [1, 2]


def test_an_input_without_rows_is_the_same_for_all_rows_of_a_call(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"])]
    kind = TensorProto.FLOAT
    path = saved(
        tmp_path / "m.onnx", nodes, [tensor("x", kind, "n", 2), tensor("k", kind)], [tensor("y", kind, "n", 2)]
    )
    frame = pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "k": [10.0, 2.0, 10.0]})
    result = Pipeline((ModelStep(path),)).infer(frame, dataset="out")
    assert np.stack(result["out.y"]).tolist() == [[10, 20], [6, 8], [50, 60]]


def test_inputs_of_different_dtypes_go_together(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    inputs = [tensor("x", TensorProto.FLOAT, "n"), tensor("k", TensorProto.INT64, "n")]
    path = saved(tmp_path / "m.onnx", nodes, inputs, [tensor("y", TensorProto.FLOAT, "n")])
    result = Pipeline((ModelStep(path),)).infer({"x": np.array([0.5], "float32"), "k": np.array([3])})
    assert result["out.y"] == [3.5]


def test_a_type_that_no_tensor_holds_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("DictVectorizer", ["m"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])]
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    path = saved(
        tmp_path / "m.onnx", nodes, [helper.make_value_info("m", kind)], [tensor("y", TensorProto.FLOAT, 1, 2)]
    )
    with pytest.raises(ModelError, match=r"^\[MODEL_INPUT_TYPE\] 'm' is a map\(string,tensor\(float\)\)"):
        Pipeline((ModelStep(path),)).infer({"m": [1.0]})


def test_a_card_by_number_is_asked_for_or_refused() -> None:
    import onnxruntime

    assert EngineConfig(device="cuda:1").device == "cuda:1"
    with pytest.raises(ValueError, match="pattern"):
        EngineConfig(device="gpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match=r"^\[DEVICE_MISSING\] engine.device is cuda:1"):
            providers("cuda:1")
