"""``TensorSpec``: one declaration of a tensor, from which Arrow, numpy, Spark and MLflow schemas are rendered.

The representation in Delta is fixed (docs/tensors.md): rank 0 is the Spark scalar, rank 1, and strings of any rank, an
array of it, rank 2 and more is BINARY in C order and little-endian, a free dimension is
``struct<data binary, shape array<int>>``.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lakemill_udfs.errors import ConfigError

ARROW_SCALARS: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.int16(),
    "uint16": pa.int32(),
    "uint32": pa.int64(),
    "uint64": pa.decimal128(20, 0),
    "float16": pa.float32(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "datetime": pa.timestamp("us", "UTC"),
    "object": pa.string(),
}
"""A dtype's scalar in Spark and Delta, which have neither unsigned integers nor half floats: the next wider type."""

DTYPES = tuple(ARROW_SCALARS)
"""The dtypes a tensor may have: numpy's names, ``string``, and as they are: ``binary`` for bytes (an encoded image),
``datetime`` for a point in time in UTC, ``object`` for what a model takes as Python dicts and lists."""

OBJECTS = ("string", "binary", "datetime", "object")
"""The dtypes whose arrays hold Python objects."""

ARROW_DTYPES: dict[pa.DataType, str] = {
    pa.bool_(): "bool",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint8(): "uint8",
    pa.uint16(): "uint16",
    pa.uint32(): "uint32",
    pa.uint64(): "uint64",
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.string_view(): "string",
}
"""The dtype of an Arrow column's values."""

FREE = pa.struct([pa.field("data", pa.binary()), pa.field("shape", pa.list_(pa.int32()))])
"""How a tensor with a free dimension is stored."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, dtype and shape without the batch dimension.

    Args:
        name: The tensor's name.
        dtype: One of ``DTYPES``.
        shape: Dimensions of one row's tensor; ``None`` is a free dimension, ``()`` a scalar.
        nullable: Whether a row may have no value.
        storage: How its column holds it: ``auto`` (by rank, as above), ``array`` (nested arrays, which SQL can read) or
            ``binary`` (C order, little-endian).

    Raises:
        ConfigError: ``TENSOR_DTYPE`` for another dtype, ``TENSOR_SHAPE`` for a negative dimension.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[int | None, ...] = ()
    nullable: bool = False
    storage: Literal["auto", "array", "binary"] = "auto"

    def __post_init__(self) -> None:
        try:  # a spec is made for a cell, too: no time for more
            shape = tuple(None if size is None else operator.index(size) for size in self.shape)
        except TypeError as error:
            raise ConfigError(
                "TENSOR_SHAPE",
                f"tensor '{self.name}': the shape is a list of whole numbers; got {type(self.shape).__name__}.",
                hint="shape: [3, null]: the sizes of one row's tensor; null is a free one, [] a single value.",
            ) from error
        object.__setattr__(self, "shape", shape)
        if self.dtype not in ARROW_SCALARS:
            raise ConfigError(
                "TENSOR_DTYPE", f"tensor '{self.name}': dtype '{self.dtype}' is not one of {', '.join(DTYPES)}."
            )
        if any(size is not None and size < 0 for size in self.shape):
            raise ConfigError(
                "TENSOR_SHAPE",
                f"tensor '{self.name}': shape {list(self.shape)} has a negative dimension.",
                hint="write null for a free dimension.",
            )

    @property
    def is_fixed(self) -> bool:
        """Whether every dimension is known."""
        return all(size is not None for size in self.shape)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of its arrays, little-endian; strings and bytes are object arrays."""
        return np.dtype(object) if self.dtype in OBJECTS else np.dtype(self.dtype).newbyteorder("<")

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row's tensor; None if a dimension is free or the dtype is string or binary."""
        if not self.is_fixed or self.dtype in OBJECTS:
            return None
        return math.prod(size or 0 for size in self.shape) * self.numpy_dtype.itemsize

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether one row's ``shape`` fits this spec (compared with None, so that 0 is a real size)."""
        return len(shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, shape, strict=True)
        )

    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type of the column that holds this tensor in Delta."""
        is_array = len(self.shape) == 1 and self.is_fixed and self.storage != "binary"
        if self.dtype in OBJECTS or self.storage == "array" or is_array:
            kind = ARROW_SCALARS[self.dtype]
            for _ in self.shape:
                kind = pa.list_(kind)
            return kind
        if not self.shape:
            return ARROW_SCALARS[self.dtype]
        return pa.binary() if self.is_fixed else FREE

    def metadata(self) -> dict[str, str]:
        """Return the column metadata that lets the next pipeline read the tensor back exactly; bytes have none."""
        if self.dtype in ("binary", "datetime", "object"):
            return {}
        return {"lakemill.dtype": self.dtype, "lakemill.shape": json.dumps(list(self.shape)), "lakemill.format": "1"}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form without the name."""
        form: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape)}
        if self.nullable:
            form["nullable"] = True
        return form if self.storage == "auto" else form | {"as": self.storage}

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]" if self.shape else f"{self.name} {self.dtype}"


def declared(name: str, raw: Mapping[str, Any]) -> TensorSpec:
    """Return the spec of a tensor declared as ``{dtype, shape, nullable, as}``."""
    return TensorSpec(
        name,
        str(raw.get("dtype", "float32")),
        tuple(raw.get("shape", ())),
        bool(raw.get("nullable", False)),
        raw.get("as", "auto"),
    )


def spec_from_metadata(name: str, metadata: dict[str, Any] | None) -> TensorSpec | None:
    """Return the spec that a column's ``lakemill.*`` metadata holds, or None if it holds none."""
    if not metadata or "lakemill.dtype" not in metadata:
        return None
    return TensorSpec(name, metadata["lakemill.dtype"], tuple(json.loads(metadata.get("lakemill.shape", "[]"))))


LISTS = (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)
"""Lists of any length."""

Kind = TensorSpec | str
"""What a column holds: a tensor, or the name of a type that is none by itself (``binary``, ``timestamp[us]``)."""


def tensor_of(name: str, kind: pa.DataType, metadata: dict[str, Any] | None = None) -> Kind:
    """Return what a column of this Arrow type holds."""
    return spec_from_metadata(name, metadata) or _of_type(name, kind)


@lru_cache  # a service sees the same columns in each call
def _of_type(name: str, kind: pa.DataType) -> Kind:
    shape: list[int | None] = []
    while True:
        if isinstance(kind, pa.FixedShapeTensorType):
            shape += tensor_shape(kind)
            kind = kind.value_type
        elif pa.types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
            kind = kind.value_type
        elif isinstance(kind, LISTS):
            shape.append(None)
            kind = kind.value_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif kind == pa.binary_view() and not shape:
            return "binary"
        else:
            return TensorSpec(name, ARROW_DTYPES[kind], tuple(shape)) if kind in ARROW_DTYPES else str(kind)


def tensor_shape(kind: pa.FixedShapeTensorType) -> list[int]:
    """Return the sizes of a tensor array's axes in the order that they are meant, which may not be that of storage."""
    return [kind.shape[axis] for axis in kind.permutation or range(len(kind.shape))]


def arrow_tensors(schema: pa.Schema) -> dict[str, Kind]:
    """Return what each column of an Arrow table holds."""
    return {
        field.name: tensor_of(
            field.name,
            field.type,
            field.metadata and {key.decode(): value.decode() for key, value in field.metadata.items()},
        )
        for field in schema
    }
