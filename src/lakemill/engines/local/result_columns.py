"""Columns as SQL declares them, ``label string, score double``: simple types; others are Spark's to read."""

from __future__ import annotations

import re

import pyarrow as pa

from lakemill.engines.local.features import unsupported

TYPES = {
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "byte": pa.int8(),
    "smallint": pa.int16(),
    "short": pa.int16(),
    "int": pa.int32(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "long": pa.int64(),
    "float": pa.float32(),
    "real": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
}
COLUMN = re.compile(r"\s*(?:`(?P<quoted>[^`]+)`|(?P<name>\w+))\s*:?\s+(?P<type>\w+)\s*")


def declared_columns(text: str) -> pa.Schema:
    """Return columns that SQL declares.

    Args:
        text: Names and simple types, with commas between.

    Raises:
        SetupError: ``ENGINE_LOCAL`` for everything else.
    """
    fields = []
    for part in text.split(","):
        found = COLUMN.fullmatch(part)
        kind = TYPES.get(found["type"].lower()) if found else None
        if found is None or kind is None:
            raise unsupported(
                f"the local engine does not read the columns '{text}'; it knows names with {', '.join(TYPES)}."
            )
        fields.append(pa.field(found["quoted"] or found["name"], kind))
    return pa.schema(fields)
