"""How one source column feeds one tensor: the tensor read from it, and the columns with its dimensions beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from lakemill_udfs.errors import TableError
from lakemill_udfs.tensors.objects import WHOLE, holds_whole
from lakemill_udfs.tensors.spec import Kind, TensorSpec

BYTES = ("binary", "large_binary", "struct", "null", "decimal")
"""Beginnings of the types that hold no tensor by themselves, but become one where its dtype and shape are declared."""


@dataclass(frozen=True)
class InputColumn:
    """A source column that feeds a tensor.

    Args:
        spec: The tensor wanted; its name is the column's.
        stored_dtype: dtype of the column's bytes where it is BINARY.
        dims: Columns with the size of each dimension, where the column holds flattened values.
    """

    spec: TensorSpec
    stored_dtype: str
    dims: tuple[str, ...] = ()


def input_column(
    name: str,
    wanted: TensorSpec | None,
    table: Mapping[str, Kind],
    declared: TensorSpec | None,
    *,
    who: str,
    also_read: Collection[str] = (),
) -> InputColumn:
    """Return how a column is read.

    Args:
        name: The column.
        wanted: The tensor that the reader needs; None if it takes any.
        table: The source's columns.
        declared: The pipeline's own declaration of this column.
        who: The reader, for messages.
        also_read: What else the same step reads; dimensions that it reads itself are left to it.

    Raises:
        TableError: ``COLUMN_TYPE`` or ``COLUMN_SHAPE``.
    """
    stored = table[name]
    tensor = stored if isinstance(stored, TensorSpec) else None
    whole = wanted or declared
    if whole is not None and (
        whole.dtype == "object" or (tensor is None and whole.dtype in WHOLE and holds_whole(str(stored), whole.dtype))
    ):
        nullable = whole.nullable or (declared is not None and declared.nullable)
        return InputColumn(replace(whole, name=name, nullable=nullable), whole.dtype)
    if tensor is None and not str(stored).startswith(BYTES):
        is_date = str(stored).startswith(("timestamp", "date", "time", "duration"))
        raise TableError(
            "COLUMN_TYPE",
            f"{who} needs '{name}' as {wanted or declared or 'a tensor'}; the column holds {stored}.",
            hint="give dates as strings, or as numbers." if is_date else "cast the column, or leave it out.",
        )
    dims = _dims(name, wanted or declared, tensor, table, also_read)
    flattened = replace(tensor, shape=(None,) * len(dims)) if tensor is not None and dims else tensor
    spec = wanted or declared or flattened
    if spec is None:
        raise TableError(
            "COLUMN_TYPE",
            f"{who} reads column '{name}' of type {stored}, which does not say its tensor.",
            hint=f"declare it: inputs: {{{name}: {{dtype: float32, shape: [3]}}}}, or add the column metadata.",
        )
    if tensor is not None and (tensor.dtype == "string") != (spec.dtype == "string"):
        raise TableError("COLUMN_TYPE", f"{who} needs '{name}' as {spec.dtype}; the column holds {tensor.dtype}.")
    known = tensor if tensor is not None and not dims else declared
    shape = spec.shape if known is None or dims else _merged(spec, known, who)
    bytes_of = tensor or declared or spec
    nullable = spec.nullable or (declared is not None and declared.nullable)
    return InputColumn(replace(spec, name=name, shape=shape, nullable=nullable), bytes_of.dtype, dims)


def _dims(
    name: str,
    wanted: TensorSpec | None,
    stored: TensorSpec | None,
    table: Mapping[str, Kind],
    also_read: Collection[str],
) -> tuple[str, ...]:
    """Return ``<name>_dim0, <name>_dim1, ...`` or ``dim0, dim1, ...``, if the column is flat and they are there."""
    if stored is not None and len(stored.shape) != 1:
        return ()
    if wanted is not None and len(wanted.shape) < 2:
        return ()
    for prefix in (f"{name}_dim", "dim"):
        found: list[str] = []
        while _is_integer(table.get(f"{prefix}{len(found)}")) and f"{prefix}{len(found)}" not in also_read:
            found.append(f"{prefix}{len(found)}")
        if len(found) == len(wanted.shape) if wanted is not None else found:
            return tuple(found)
    return ()


def _is_integer(kind: Kind | None) -> bool:
    return isinstance(kind, TensorSpec) and not kind.shape and "int" in kind.dtype


def _merged(spec: TensorSpec, known: TensorSpec, who: str) -> tuple[int | None, ...]:
    """Return the tensor's shape with the sizes that the column is known to have.

    A vector or a single value may fill any tensor of as many values, and a tensor may become a vector.
    """
    if len(spec.shape) != len(known.shape):
        if len(spec.shape) < 2 or len(known.shape) < 2:
            return spec.shape
        raise _unlike(spec, known, who)
    if len(spec.shape) < 2:
        return spec.shape
    pairs = list(zip(spec.shape, known.shape, strict=True))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise _unlike(spec, known, who)
    return tuple(have if want is None else want for want, have in pairs)


def _unlike(spec: TensorSpec, known: TensorSpec, who: str) -> TableError:
    return TableError(
        "COLUMN_SHAPE",
        f"{who} needs {spec}; column '{known.name}' holds {known}.",
        hint="turn the axes where the tensors are made, or with a Python step.",
    )
