"""The inputs and outputs that an ``MLmodel`` file's signature says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.model import Specs
from lakemill_udfs.tensors.spec import DTYPES, TensorSpec

COLUMN_DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "binary": "binary",
    "datetime": "datetime",
}
OBJECT_KINDS = ("object", "map", "any", "sparkml-vector")
TENSOR_DTYPES = {"str": "string", "object": "string", "bytes": "binary"}


def signature_specs(described: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return inputs and outputs of a signature; empty where it says nothing.

    An unnamed tensor is called ``input`` or ``output``; unnamed columns are called by their place: ``0``, ``1``.
    Columns of objects and maps are given to the model as dicts; what it gives of them is JSON, in a string.

    Raises:
        ModelError: ``MODEL_INPUT_TYPE`` or ``MODEL_OUTPUT_TYPE`` for what neither a tensor nor a column can hold.
    """
    signature = described.get("signature") or {}
    inputs = json.loads(signature.get("inputs") or "[]")
    outputs = json.loads(signature.get("outputs") or "[]")
    return (
        tuple(_spec(column, _name(inputs, at, "input"), "object") for at, column in enumerate(inputs)),
        tuple(_spec(column, _name(outputs, at, "output"), "string") for at, column in enumerate(outputs)),
    )


def is_by_column(path: Path) -> bool:
    """Return whether the signature of an MLflow model's folder is one of columns, as a DataFrame has them."""
    import yaml  # comes with MLflow

    described = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8")) or {}
    inputs = json.loads((described.get("signature") or {}).get("inputs") or "[]")
    return bool(inputs) and all(column["type"] != "tensor" for column in inputs)


def _name(schema: list[dict[str, Any]], at: int, alone: str) -> str:
    return str(schema[at].get("name", alone if len(schema) == 1 else at))


def _spec(column: Mapping[str, Any], name: str, objects: str) -> TensorSpec:
    """Return the spec of a column or tensor; ``objects`` is the dtype of dicts."""
    nullable, kind = not column.get("required", True), column["type"]
    if kind == "tensor":
        tensor = column["tensor-spec"]
        dtype = TENSOR_DTYPES.get(tensor["dtype"], tensor["dtype"])
        if dtype in DTYPES:
            shape = tuple(None if size == -1 else size for size in tensor["shape"][1:])
            return TensorSpec(name, dtype, shape, nullable)
        kind = f"tensor of {tensor['dtype']}"
    elif kind == "array":
        inner = _spec(column["items"], name, objects)
        whole = inner.dtype in ("object", "datetime", "binary") or column["items"]["type"] in OBJECT_KINDS
        return TensorSpec(name, objects if whole else inner.dtype, () if whole else (None, *inner.shape), nullable)
    elif kind in OBJECT_KINDS:
        return TensorSpec(name, objects, (), nullable)
    elif kind in COLUMN_DTYPES:
        return TensorSpec(name, COLUMN_DTYPES[kind], (), nullable)
    raise ModelError(
        "MODEL_INPUT_TYPE" if objects == "object" else "MODEL_OUTPUT_TYPE",
        f"the model's signature has '{name}' {'(optional) ' if nullable else ''}as {kind}, which no column can hold.",
        hint="give it as text or numbers, in a model of your own around this one.",
    )
