"""A model's inputs and outputs as users write them, and as MLflow's signature."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.models.model import Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec, tensor_of

MLFLOW_COLUMNS = {
    "bool": "boolean",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "uint8": "integer",
    "uint16": "integer",
    "uint32": "long",
    "float16": "float",
    "float32": "float",
    "float64": "double",
    "string": "string",
    "binary": "binary",
    "datetime": "datetime",
}


def as_specs(schema: Any, side: str = "inputs") -> Specs:
    """Return a schema as tensors.

    Args:
        schema: A ``pyarrow.Schema`` (lists with a size for each axis; a free size is a list without), ``TensorSpec``s,
            or an MLflow ``ModelSignature``; None for none.
        side: Which of a signature's.

    Raises:
        ConfigError: ``MODEL_SCHEMA`` for anything else, or a field that is no tensor.
    """
    if schema is None:
        return ()
    if isinstance(schema, pa.Schema):
        return tuple(_of_field(field) for field in schema)
    if hasattr(schema, "inputs") and hasattr(schema, "to_dict"):  # an MLflow signature
        inputs, outputs = signature_specs({"signature": schema.to_dict()})
        return inputs if side == "inputs" else outputs
    specs = tuple(schema) if isinstance(schema, Iterable) and not isinstance(schema, str) else ()
    if not specs or not all(isinstance(spec, TensorSpec) for spec in specs):
        raise ConfigError(
            "MODEL_SCHEMA",
            f"a schema is a pyarrow.Schema, TensorSpecs or an MLflow signature; got {type(schema).__name__}.",
        )
    return specs


def _of_field(field: pa.Field) -> TensorSpec:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    kind = tensor_of(field.name, field.type, metadata)
    if isinstance(kind, TensorSpec):
        return kind
    if kind in ("binary", "large_binary"):
        return TensorSpec(field.name, "binary")
    if kind.startswith("timestamp"):
        return TensorSpec(field.name, "datetime")
    raise ConfigError("MODEL_SCHEMA", f"field '{field.name}' of a model's schema is {field.type}, which is no tensor.")


def check_declared(name: str, side: str, declared: Specs, found: Specs) -> None:
    """Look whether what is declared is what the model has; a dtype that the model does not know is the user's to say.

    Raises:
        ModelError: ``MODEL_SCHEMA`` with both.
    """
    same = len(declared) == len(found) and all(
        _fits(one, other, side) for one, other in zip(declared, found, strict=True)
    )
    if declared and found and not same:
        raise ModelError(
            "MODEL_SCHEMA",
            f"model '{name}': the {side} are declared as {_text(declared)}; the model has {_text(found)}.",
            hint="declare what the model has, or leave the schema out.",
        )


def _fits(declared: TensorSpec, found: TensorSpec, side: str) -> bool:
    sizes = len(declared.shape) == len(found.shape) and all(
        a == b or None in (a, b) for a, b in zip(declared.shape, found.shape, strict=True)
    )
    is_same = declared.dtype == found.dtype or (
        side == "inputs" and (declared.dtype in OBJECTS) == (found.dtype in OBJECTS)
    )
    return declared.name == found.name and sizes and is_same


def _text(specs: Specs) -> str:
    return "(" + ", ".join(map(str, specs)) + ")"


def signature(inputs: Specs, outputs: Specs) -> Any:
    """Return MLflow's signature: columns for single values, else tensors; one array ``inputs`` has no name there."""
    from mlflow.models import ModelSignature

    return ModelSignature(_schema(inputs, "inputs"), _schema(outputs, "outputs"))


def _schema(specs: Specs, side: str) -> Any:
    from mlflow.types import ColSpec, DataType, Schema

    if not specs:
        return None
    if all(not spec.shape and spec.dtype in MLFLOW_COLUMNS for spec in specs) and side == "inputs":
        return Schema(
            [ColSpec(DataType[MLFLOW_COLUMNS[spec.dtype]], spec.name, required=not spec.nullable) for spec in specs]
        )
    return Schema([_tensor(spec, is_named=len(specs) > 1 or spec.name != "inputs") for spec in specs])


def _tensor(spec: TensorSpec, *, is_named: bool) -> Any:
    from mlflow.types import TensorSpec as MlflowTensor

    dtype = (
        np.dtype("str") if spec.dtype == "string" else np.dtype("object") if spec.dtype in OBJECTS else spec.numpy_dtype
    )
    shape = (-1, *(-1 if size is None else size for size in spec.shape))
    return MlflowTensor(dtype, shape, spec.name if is_named else None)


def as_json(specs: Specs) -> dict[str, Any]:
    """Return tensors as an MLflow model's metadata holds them."""
    return json.loads(json.dumps({spec.name: spec.to_dict() for spec in specs}))  # type: ignore[no-any-return]
