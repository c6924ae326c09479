"""Which columns of a predictions table mean what: read off its schema, since any pipeline may have written it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import types

from lakemill_udfs.report_counts import ReportFields

RESERVED = {"time", "in", "out", "anomaly", "error", "metadata"}
SCORES = ("probability", "score", "confidence")


def fields_of(schema: pa.Schema, key: Sequence[str]) -> ReportFields:
    """Read the roles off a schema.

    The label is ``out.label``, else the first text, else the first integer field of ``out``. The truth is the carried
    column of the label's name, else ``label``.

    Args:
        schema: Of the predictions.
        key: Key columns.
    """
    carried = {field.name: field.type for field in schema if field.name not in RESERVED}
    out = _inside(schema, "out")
    label = _label(out)
    numeric = {name for name, kind in (carried | out).items() if _is_number(kind)}
    score = next((name for name in SCORES if label and name in out and types.is_floating(out[name])), None)
    return ReportFields(
        key=tuple(key),
        label=label,
        truth=next((name for name in (label, "label") if label and name in carried), None),
        score=score,
        numbers=tuple(
            (name, name if name in carried and name in numeric else None)
            for name in out
            if name in numeric and name not in (label, score)
        ),
        checks=tuple(name for name in _inside(schema, "anomaly") if name != "count"),
        has_time="time" in schema.names,
    )


def _label(out: dict[str, pa.DataType]) -> str | None:
    if "label" in out:
        return "label"
    texts = [name for name, kind in out.items() if types.is_string(kind)]
    integers = [name for name, kind in out.items() if types.is_integer(kind)]
    return next(iter(texts + integers), None)


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _inside(schema: pa.Schema, name: str) -> dict[str, pa.DataType]:
    kind = schema.field(name).type if name in schema.names else None
    return {field.name: field.type for field in kind} if kind is not None and types.is_struct(kind) else {}
