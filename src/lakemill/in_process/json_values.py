"""Values as JSON holds them: a strict reader takes what ``json.dumps`` makes of them."""

from __future__ import annotations

import base64
import datetime as dt
import math
from typing import Any

import numpy as np

from lakemill_udfs.tensors.cells import ARROW, is_missing

JSON_TYPES = (int, str, bool, type(None))


def plain(values: Any) -> Any:
    """Return values as JSON holds them, at any depth.

    Lists stand for arrays, ISO 8601 for dates and durations, base64 for bytes, text for decimals, whose digits a
    number would lose. NaN is null; what is infinite is the text ``Infinity`` or ``-Infinity``, as JSON has no such
    number.
    """
    if isinstance(values, ARROW):
        return [plain(value) for value in values.to_pylist()]
    if isinstance(values, np.ndarray | np.generic):
        return _of_numpy(values)
    if isinstance(values, list | tuple):
        return [value if type(value) in JSON_TYPES else plain(value) for value in values]
    if isinstance(values, dict):
        return {str(name): plain(value) for name, value in values.items()}
    return values if type(values) in JSON_TYPES else _of_object(values)


def _of_numpy(values: Any) -> Any:
    kind = values.dtype.kind
    if kind == "f":
        values = values.astype(np.float64)  # Python has no wider one
    if kind in "iubU" or (kind == "f" and np.isfinite(values).all()):
        return values.tolist()
    if kind == "M":  # of nanoseconds numpy makes bare integers
        texts = np.datetime_as_string(values).tolist()
        return _each(lambda text: None if text == "NaT" else text, texts)
    if kind == "m":
        seconds = (values / np.timedelta64(1, "s")).tolist()
        return _each(lambda value: None if math.isnan(value) else _duration(value), seconds)
    return plain(values.tolist())


def _each(convert: Any, values: Any) -> Any:
    return [_each(convert, value) for value in values] if isinstance(values, list) else convert(values)


def _no_number(value: float) -> str | None:
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _duration(seconds: float) -> str:
    return f"PT{seconds:.9f}".rstrip("0").rstrip(".") + "S"


def _of_object(value: Any) -> Any:
    if is_missing(value):
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else _no_number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _duration(value.total_seconds())
    return str(value)  # a Decimal, a UUID
