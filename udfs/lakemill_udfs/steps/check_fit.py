"""Whether a check fits the columns it reads, from its resolved Polars expression and before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import Check
from lakemill_udfs.tensors.spec import ARROW_SCALARS, Kind, TensorSpec

if TYPE_CHECKING:
    import polars as pl

Fields = Mapping[str, pa.DataType | None]
"""The fields of ``in`` or ``out``; None where the type is not known by now."""

SIDES = ("in", "out")


def fields_read(expression: pl.Expr) -> dict[str, set[str] | None]:
    """Return the fields of ``in`` and ``out`` that an expression reads; None where it reads the struct as a whole."""
    found: dict[str, set[str] | None] = {side: set() for side in SIDES}
    _walk(json.loads(expression.meta.serialize(format="json")), found)
    return found


def _walk(node: Any, found: dict[str, set[str] | None]) -> None:
    if isinstance(node, list):
        for inner in node:
            _walk(inner, found)
        return
    if not isinstance(node, dict):
        return
    field = _field(node)
    if field is not None:
        side, name = field
        known = found.get(side)
        if known is not None:
            known.add(name)
        return
    for kind, inner in node.items():
        if kind == "Column" and isinstance(inner, str):
            found[inner] = None
        else:
            _walk(inner, found)


def _field(node: dict[str, Any]) -> tuple[str, str] | None:
    """Return side and name if a node is ``in.<name>`` or ``out.<name>``."""
    match node:
        case {"Function": {"input": [{"Column": str(side)}], "function": {"StructExpr": {"FieldByName": str(name)}}}}:
            return side, name
    return None


def input_types(table: Mapping[str, Kind], names: Iterable[str]) -> dict[str, pa.DataType | None]:
    """Return the types of ``in``'s fields, as far as what a column holds says them."""
    return {name: _type_of(table[name]) for name in names if name in table}


def _type_of(kind: Kind) -> pa.DataType | None:
    if isinstance(kind, TensorSpec):
        return None if kind.shape else ARROW_SCALARS[kind.dtype]
    try:
        return pa.type_for_alias(kind)
    except ValueError:
        return None


def require_fit(check: Check, expression: pl.Expr, inputs: Fields | None, outputs: Fields) -> None:
    """Refuse a check that reads what is not there, or whose result is no boolean.

    Args:
        check: For messages.
        expression: Compiled.
        inputs: The fields of ``in``; None if any may be there.
        outputs: The fields of ``out``.

    Raises:
        ConfigError: ``CHECK_FIELD`` for a field that is not there, ``CHECK_TYPE`` if the expression does not fit the
            fields' types or gives no boolean.
    """
    import polars as pl

    types: dict[str, dict[str, pa.DataType | None]] = {}
    for side, names in fields_read(expression).items():
        there = inputs if side == "in" else outputs
        if there is None:
            types[side] = dict.fromkeys(names or ())
            continue
        unknown = sorted((names or set()) - there.keys())
        if unknown:
            raise ConfigError(
                "CHECK_FIELD",
                f"check '{check.name}' reads {side}.{unknown[0]}; there are: {', '.join(there) or 'none'}.",
                hint="a column of the source is read as in.<column>; carry it: source.columns."
                if side == "in"
                else None,
            )
        types[side] = dict(there) if names is None else {name: there[name] for name in names}
    if any(kind is None for fields in types.values() for kind in fields.values()):
        return  # judged when the rows are there
    empty = {side: pa.nulls(0, pa.struct(list(fields.items()))) for side, fields in types.items() if fields}
    try:
        frame = pl.DataFrame({side: pl.Series(struct) for side, struct in empty.items()})
        result = frame.select(expression)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _unfit(check, f"does not fit what it reads ({type(error).__name__})", types) from None
    if result.dtypes != [pl.Boolean]:
        raise _unfit(check, f"is no condition: it gives {', '.join(map(str, result.dtypes))}", types)


def _unfit(check: Check, what: str, types: Mapping[str, Fields]) -> ConfigError:
    read = ", ".join(f"{side}.{name} {kind}" for side, fields in types.items() for name, kind in fields.items())
    return ConfigError(
        "CHECK_TYPE",
        f"check '{check.name}' {what}; it reads: {read or 'nothing'}.",
        hint="a check is true where a row is to be flagged, for example out.probability < 0.5",
    )


def inputs_read(expressions: Iterable[pl.Expr], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that checks read as ``in.<name>``, in order."""
    read = [fields_read(expression)["in"] for expression in expressions]
    return tuple(name for name in names if any(fields is None or name in fields for fields in read))
