"""The inputs and outputs that an ``MLmodel`` file's signature says."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
}
TENSOR_DTYPES = {"str": "string", "object": "string", "bytes": "binary"}


def signature_specs(described: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return inputs and outputs of a signature; empty where it says nothing.

    An unnamed tensor is called ``input`` or ``output``; unnamed columns (a DataFrame without names) are called by their
    place: ``0``, ``1``.

    Raises:
        ModelError: ``MODEL_INPUT_TYPE`` for a column that no tensor can hold.
    """
    signature = described.get("signature") or {}
    return (
        _specs(json.loads(signature.get("inputs") or "[]"), "input"),
        _specs(json.loads(signature.get("outputs") or "[]"), "output"),
    )


def _specs(schema: list[dict[str, Any]], unnamed: str) -> Specs:
    by_place = len(schema) > 1
    return tuple(_spec(column, str(at) if by_place else unnamed) for at, column in enumerate(schema))


def _spec(column: Mapping[str, Any], unnamed: str) -> TensorSpec:
    name, nullable = str(column.get("name", unnamed)), not column.get("required", True)
    kind = column["type"]
    if kind == "tensor":
        tensor = column["tensor-spec"]
        dtype = TENSOR_DTYPES.get(tensor["dtype"], tensor["dtype"])
        if dtype in DTYPES:
            shape = tuple(None if size == -1 else size for size in tensor["shape"][1:])
            return TensorSpec(name, dtype, shape, nullable)
        kind = f"tensor of {tensor['dtype']}"
    elif kind == "array":
        inner = _spec({"name": name, **column["items"]}, unnamed)
        return TensorSpec(name, inner.dtype, (None, *inner.shape), nullable)
    elif kind in COLUMN_DTYPES:
        return TensorSpec(name, COLUMN_DTYPES[kind], (), nullable)
    raise ModelError(
        "MODEL_INPUT_TYPE",
        f"the model's signature has '{name}' {'(optional) ' if nullable else ''}as {kind}, which no tensor can hold.",
        hint="give it to the model as text or numbers, in a model of your own around this one.",
    )
