"""Schemas of tables in Arrow's terms, which both engines speak: columns, what a run writes, what fits."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyarrow import types

from lakemill_udfs.plan import ERROR, METADATA, PredictPlan
from lakemill_udfs.tensors.spec import Kind, arrow_tensors

SIMPLE = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.date32(): "date",
    pa.null(): "void",
}
"""Names of types in SQL, as Spark writes them."""


def fields_of(schema: pa.Schema) -> dict[str, pa.Field]:
    """Return the columns of a table and, as ``out.label``, the fields of its structs.

    That is also what ``infer`` calls a result, so a next pipeline reads ``out.label`` in either place.
    """
    inner = {
        f"{field.name}.{part.name}": part
        for field in schema
        if types.is_struct(field.type)
        for part in field.type
        if part.name
    }
    return {field.name: field for field in schema} | inner | {field.name: field for field in schema}


def tensors_of(schema: pa.Schema) -> dict[str, Kind]:
    """Return what each column of a table holds, and each field of its structs."""
    return arrow_tensors(pa.schema([field.with_name(name) for name, field in fields_of(schema).items()]))


def predictions_schema(plan: PredictPlan, source: pa.Schema) -> pa.Schema:
    """Return the columns of the predictions that a plan makes.

    Args:
        plan: Says which columns there are.
        source: The source's columns; carried ones keep their type and metadata.
    """
    known = fields_of(source)
    parts = {
        "time": pa.timestamp("us", "UTC"),
        "in": pa.struct([known[name].with_name(name) for name in plan.input_columns]),
        "out": plan.out_type,
        "anomaly": plan.anomaly_type,
    }
    carried = [known[name].with_name(name) for name in plan.passthrough]
    made = []
    for part in plan.parts:
        made += [pa.field(part, parts[part])] if plan.challengers is None else []
        if part == "out":
            made += [pa.field(name, kind) for name, kind in plan.branch_types.items()]
    return pa.schema([*carried, *made, pa.field("error", ERROR), pa.field("metadata", METADATA)])


def lost_fields(old: pa.Schema, new: pa.Schema) -> list[str]:
    """Return what keeps rows of ``new`` out of a table of ``old``: only structs may gain fields, nothing may go.

    A column that is wider in the table is no loss.

    Args:
        old: What is there.
        new: What is to come.
    """
    extra = [f"{name} is new" for name in new.names if name not in old.names]
    return [*extra, *_lost(old, new, "")]


def lacks_fields(table: pa.Schema, rows: pa.Schema) -> bool:
    """Return whether a table lacks columns, or fields of structs, that rows have."""
    return bool(_lost(rows, table, ""))


def _lost(old: Iterable[pa.Field], new: Iterable[pa.Field], prefix: str) -> list[str]:
    coming, lost = {field.name: field.type for field in new}, []
    for field in old:
        name, kind = prefix + field.name, coming.get(field.name)
        if kind is None:
            lost.append(f"{name} is gone")
        elif types.is_struct(field.type) and types.is_struct(kind):
            lost += _lost(field.type, kind, f"{name}.")
        elif type_text(kind) != type_text(field.type) and (prefix or not is_wider(kind, field.type)):
            lost.append(f"{name} was {type_text(field.type)}, is {type_text(kind)}")
    return lost


def _fit(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether a column's values and those to come fit into the wider of their types."""
    return is_wider(one, other) or is_wider(other, one)


def unlike_fields(old: Iterable[pa.Field], new: Iterable[pa.Field], prefix: str = "") -> list[str]:
    """Return which fields cannot stand in one table: one name with two types, or names that only letter case parts.

    Args:
        old: What is there.
        new: What is to come; fields that only one side has are no problem, nor are columns of which one side is wider.
        prefix: Of the names.
    """
    there, unlike = {field.name.lower(): field for field in old}, []
    for field in new:
        known = there.get(field.name.lower())
        if known is None:
            continue
        name = prefix + field.name
        if known.name != field.name:
            unlike.append(f"{name} is called {prefix}{known.name} there")
        elif types.is_struct(known.type) and types.is_struct(field.type):
            unlike += unlike_fields(known.type, field.type, f"{name}.")
        elif type_text(known.type) != type_text(field.type) and (prefix or not _fit(known.type, field.type)):
            unlike.append(f"{name} is {type_text(known.type)} there, expected {type_text(field.type)}")
    return unlike


def is_wider(new: pa.DataType, old: pa.DataType) -> bool:
    """Return whether a type holds every value of another one as it is: a larger integer, float or decimal."""
    if types.is_signed_integer(new) and types.is_signed_integer(old):
        return bool(new.bit_width > old.bit_width)
    if types.is_decimal(new) and types.is_decimal(old):
        whole, digits = new.precision - new.scale, old.precision - old.scale
        return bool(new != old and new.scale >= old.scale and whole >= digits)
    small = types.is_float32(old) or (types.is_signed_integer(old) and old.bit_width <= 32)
    return bool(types.is_float64(new) and small)


def widened(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """Return the columns of a table that are wider in rows to come, with the rows' types.

    Args:
        old: Of the table.
        new: Of the rows.
    """
    coming = {field.name: field.type for field in new}
    pairs = [(field, coming[field.name]) for field in old if field.name in coming]
    return pa.schema([field.with_type(kind) for field, kind in pairs if is_wider(kind, field.type)])


def ddl(schema: pa.Schema) -> str:
    """Return columns as SQL declares them."""
    return ", ".join(f"{field.name} {type_text(field.type)}" for field in schema)


def type_text(kind: pa.DataType) -> str:
    """Return a type's name in SQL, as Spark writes it."""
    if types.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{type_text(field.type)}' for field in kind)}>"
    if types.is_list(kind) or types.is_large_list(kind):
        return f"array<{type_text(kind.value_type)}>"
    if types.is_map(kind):
        return f"map<{type_text(kind.key_type)},{type_text(kind.item_type)}>"
    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp_ntz"
    return SIMPLE.get(kind, str(kind))
