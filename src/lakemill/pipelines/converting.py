"""Another form of a model, ONNX or with small whole numbers, taken only if it agrees on the user's own rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill.pipelines.network_graphs import keras_graph, torch_graph
from lakemill_udfs.errors import ConfigError, ModelError, missing_extra
from lakemill_udfs.models import flavors
from lakemill_udfs.models.cache import ModelCache
from lakemill_udfs.models.content import content_sha256
from lakemill_udfs.models.model import Arrays, ModelSpec, Specs
from lakemill_udfs.models.plain_runtime import class_root

OPSET = 17
WORST_ROWS = 5
PLACES = {"predict": 0, "predict_proba": 1, "transform": 0, "decision_function": 1}
"""Which output of a converted graph is a method's: classifiers give labels, then scores; all others have one."""


@dataclass(frozen=True)
class Certificate:
    """How a converted model agrees with the original.

    Args:
        original: sha256 of the original.
        form: What it became: ``onnx``, ``int8``.
        rows: How many rows were compared.
        largest_error: Largest absolute difference of a number.
        equal_labels: Share of rows whose labels, texts and whole numbers are the same.
        tolerance: By how much numbers may differ, absolutely and relatively.
        worst_rows: The rows that differ most, worst first.
        by: What converted it.
    """

    original: str
    form: str
    rows: int
    largest_error: float
    equal_labels: float
    tolerance: float
    worst_rows: tuple[int, ...]
    by: str

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return asdict(self) | {"worst_rows": list(self.worst_rows), "summary": str(self)}

    def __str__(self) -> str:
        return (
            f"{self.form} by {self.by}: {self.rows} rows, largest error {self.largest_error:.3g} "
            f"(tolerance {self.tolerance:g}), {self.equal_labels:.2%} of labels equal"
        )


def converted(
    spec: ModelSpec, rows: Arrays | None, folder: Path, *, target: str = "onnx", tolerance: float = 1e-4
) -> tuple[ModelSpec, Certificate]:
    """Return a model as an ONNX graph.

    Args:
        spec: The model.
        rows: The user's rows by input.
        folder: Where the graph is written.
        target: ``onnx``.
        tolerance: By how much numbers may differ.

    Raises:
        ModelError: ``CONVERT_DISAGREES`` if it gives other results, ``CONVERT_FAILED`` if it cannot be converted.
        ConfigError: ``CONVERT_ROWS`` without rows, ``CONVERT_TARGET`` for another target.
    """
    if target != "onnx":
        raise ConfigError("CONVERT_TARGET", f"models are converted to onnx; got '{target}'.")
    native = flavors.runtime(spec.flavor).native(Path(spec.location), spec.options)
    kind = next((root for root in roots(native) if root in CONVERTERS), None)
    if kind is None:
        raise ModelError(
            "CONVERT_FAILED",
            f"models of {spec.flavor} are not converted to onnx; those of {', '.join(CONVERTERS)} are.",
            hint="leave convert out: it runs on its own framework.",
        )
    for converter in ("skl2onnx", "tf2onnx", "torch.onnx"):
        logging.getLogger(converter).setLevel(logging.ERROR)
    try:
        graph = CONVERTERS[kind](native, spec)
    except ImportError as error:
        raise missing_extra(str(error.name), "convert") from error
    except Exception as error:  # converters have classes of their own for each thing they do not know
        raise ModelError(
            "CONVERT_FAILED",
            f"model '{spec.name}' cannot be converted to onnx ({type(error).__name__}).",
            hint="leave convert out: it runs on its own framework.",
        ) from error
    path = folder / f"{spec.name}.onnx"
    path.write_bytes(graph.SerializeToString())
    return _accepted(spec, path, rows, form="onnx", by=MADE_BY.get(kind, "onnxmltools"), tolerance=tolerance)


def roots(value: Any) -> list[str]:
    """Return the packages of an object's class and of those that it derives from."""
    return [one.__module__.partition(".")[0] for one in type(value).__mro__]


def quantized(
    spec: ModelSpec, rows: Arrays | None, folder: Path, *, kind: str = "int8", tolerance: float = 1e-2
) -> tuple[ModelSpec, Certificate]:
    """Return an ONNX graph whose weights are whole numbers of 8 bits; arguments and errors as ``converted``."""
    if kind != "int8":
        raise ConfigError("CONVERT_TARGET", f"weights are quantized to int8; got '{kind}'.")
    if Path(spec.location).suffix != ".onnx":
        raise ModelError(
            "CONVERT_FAILED", "only ONNX graphs are quantized.", hint="convert it to onnx in the same call."
        )
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / f"{spec.name}_int8.onnx"
    quantize_dynamic(spec.location, str(path), weight_type=QuantType.QInt8)
    return _accepted(spec, path, rows, form="int8", by="onnxruntime", tolerance=tolerance)


def _accepted(
    spec: ModelSpec, path: Path, rows: Arrays | None, *, form: str, by: str, tolerance: float
) -> tuple[ModelSpec, Certificate]:
    if rows is None:
        raise ConfigError(
            "CONVERT_ROWS",
            "a conversion is accepted on rows of yours, and there are none.",
            hint="input_example= some hundred rows; lakemill register --example rows.parquet",
        )
    inputs, outputs = flavors.specs("onnx", spec.name, path, {}, {})
    new = replace(
        spec, location=str(path), flavor="onnx", sha256=content_sha256(path), inputs=inputs, outputs=outputs,
        beside=(), options={},
    )  # fmt: skip
    certificate = compared(spec, _results(spec, rows), _results(new, rows), form=form, by=by, tolerance=tolerance)
    return new, certificate


def _results(spec: ModelSpec, rows: Arrays) -> Arrays:
    return ModelCache().get(spec, threads=0, device="cpu")[0].model.predict(_as_taken(rows, spec.inputs))


def _as_taken(rows: Arrays, inputs: Specs) -> Arrays:
    arrays = {one.name: rows[one.name] for one in inputs}
    return {
        one.name: (
            arrays[one.name]
            if arrays[one.name].ndim == 1 + len(one.shape)
            else arrays[one.name].reshape(len(arrays[one.name]), *(size or -1 for size in one.shape))
        ).astype(one.numpy_dtype)
        for one in inputs
    }


def compared(spec: ModelSpec, original: Arrays, other: Arrays, *, form: str, by: str, tolerance: float) -> Certificate:
    """Return how two results agree.

    Raises:
        ModelError: ``CONVERT_DISAGREES`` if a number differs by more than the tolerance, or a label at all.
    """
    rows = len(next(iter(original.values())))
    errors, differ, is_outside = np.zeros(rows), np.zeros(rows, bool), original.keys() != other.keys()
    for name in original.keys() & other.keys():
        one, two = original[name].reshape(rows, -1), other[name].reshape(rows, -1)
        if one.shape != two.shape:
            is_outside = True
        elif one.dtype.kind == "f":
            error = _difference(one, two)
            errors = np.maximum(errors, error.max(axis=1))
            is_outside = is_outside or bool((error > tolerance * (1 + np.abs(one))).any())
        else:
            differ |= (_labels(one) != _labels(two)).any(axis=1)
    worst = np.argsort(-(errors + differ * 1e30), kind="stable")[:WORST_ROWS]
    certificate = Certificate(
        spec.sha256,
        form,
        rows,
        float(errors.max(initial=0.0)),
        float(1 - differ.mean()),
        tolerance,
        tuple(int(row) for row in worst if errors[row] > 0 or differ[row]),
        by,
    )
    if is_outside or differ.any():
        raise ModelError(
            "CONVERT_DISAGREES",
            f"model '{spec.name}' gives other results as {certificate}; the worst rows: "
            f"{', '.join(map(str, certificate.worst_rows)) or 'all, by name or shape'}. Nothing was registered.",
            hint="leave convert out: it runs on its own framework; or allow more with tolerance.",
        )
    return certificate


def _labels(array: NDArray[Any]) -> NDArray[Any]:
    """Return labels so that they compare: a graph may give numbers for booleans, never for texts."""
    return (array.astype("int64") if array.dtype.kind in "biu" else array).astype(str)


def _difference(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.float64]:
    """Return the absolute difference; NaN beside NaN is none, beside a number infinite."""
    both = np.isnan(one) & np.isnan(two.astype("float64"))
    error = np.abs(one.astype("float64") - two.astype("float64"))
    error[both] = 0
    return np.where(np.isnan(error), np.inf, error)


def _sklearn(native: Any, spec: ModelSpec) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    is_plain = all(one.dtype != "string" for one in spec.inputs)
    types: list[tuple[str, Any]] = [("inputs", FloatTensorType([None, _width(spec)]))]
    if not is_plain:
        types = [
            (one.name, (StringTensorType if one.dtype == "string" else FloatTensorType)([None, 1]))
            for one in spec.inputs
        ]
    method = spec.options.get("method", "predict")
    final = native.steps[-1][1] if hasattr(native, "steps") else native
    extra = {"zipmap": False} if hasattr(final, "classes_") else {}
    extra |= {"raw_scores": True} if method == "decision_function" else {}
    graph = to_onnx(native, initial_types=types, target_opset=OPSET, options={id(native): extra} if extra else None)
    return _by_column(_with_output(graph, spec), spec) if is_plain else _with_output(graph, spec)


def _onnxmltools(native: Any, spec: ModelSpec) -> Any:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("inputs", FloatTensorType([None, _width(spec)]))]
    convert: Mapping[str, Callable[..., Any]] = {
        "xgboost": onnxmltools.convert_xgboost,
        "lightgbm": onnxmltools.convert_lightgbm,
    }
    kind = class_root(native)
    extra = {"zipmap": False} if kind == "lightgbm" else {}
    graph = convert[kind](_without_names(native), initial_types=types, target_opset=15, **extra)
    return _by_column(_with_output(graph, spec), spec)


def _without_names(native: Any) -> Any:
    """Return trees whose features are called by their places, which the converter reads from their names."""
    booster = native.get_booster() if hasattr(native, "get_booster") else None
    if booster is not None and booster.feature_names is not None:
        booster.feature_names = [f"f{at}" for at in range(len(booster.feature_names))]
    return native


CONVERTERS: dict[str, Callable[[Any, ModelSpec], Any]] = {
    "sklearn": _sklearn,
    "xgboost": _onnxmltools,
    "lightgbm": _onnxmltools,
    "torch": torch_graph,
    "keras": keras_graph,
}
"""What converts an object, by the package of its class or of one that it derives from."""

MADE_BY = {"sklearn": "skl2onnx", "torch": "torch.onnx", "keras": "tf2onnx"}
"""What the certificate names; ``onnxmltools`` for all others."""


def _width(spec: ModelSpec) -> int:
    return int(spec.inputs[0].shape[0] or 1) if spec.inputs[0].shape else len(spec.inputs)


def _with_output(graph: Any, spec: ModelSpec) -> Any:
    """Leave the output of the method only, under the name that the original gives it, and without an axis of one."""
    from onnx import compose, helper

    graph = compose.add_prefix(graph, "converted_", rename_inputs=False)  # its names may be those of our output
    method = spec.options.get("method", "predict")
    outputs = list(graph.graph.output)
    chosen = outputs[min(PLACES.get(method, 0), len(outputs) - 1)]
    wanted = spec.outputs[0]
    elements = chosen.type.tensor_type.elem_type
    if not wanted.shape:
        shape = helper.make_tensor("lakemill_rows", 7, [1], [-1])
        graph.graph.initializer.append(shape)
        graph.graph.node.append(helper.make_node("Reshape", [chosen.name, "lakemill_rows"], [wanted.name]))
    else:
        graph.graph.node.append(helper.make_node("Identity", [chosen.name], [wanted.name]))
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(wanted.name, elements, ["n", *wanted.shape]))
    return graph


def _by_column(graph: Any, spec: ModelSpec) -> Any:
    """Let the graph take the columns that the original takes, in place of one array."""
    if spec.inputs[0].shape:
        graph.graph.input[0].name, old = spec.inputs[0].name, graph.graph.input[0].name
        for node in graph.graph.node:
            node.input[:] = [spec.inputs[0].name if name == old else name for name in node.input]
        return graph
    from onnx import TensorProto, helper

    array = graph.graph.input[0].name
    del graph.graph.input[:]
    for one in spec.inputs:
        graph.graph.input.append(helper.make_tensor_value_info(one.name, TensorProto.FLOAT, ["n", 1]))
    joined = helper.make_node("Concat", [one.name for one in spec.inputs], [array], axis=1)
    graph.graph.node.insert(0, joined)
    return graph
