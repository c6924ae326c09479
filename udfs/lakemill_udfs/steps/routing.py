"""Where a row goes: by a hash of its key, or by the key's value; the same on every engine and in every run."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.steps.traffic import SplitStep

NULL, BETWEEN = "\x00", "\x1f"


def place_rows(step: SplitStep, columns: Mapping[str, Any], rows: int) -> NDArray[np.int64]:
    """Return for each row the place of its model among the step's members.

    Args:
        step: Says how.
        columns: With the step's key columns, in any form that a runner takes.
        rows: Of each.
    """
    if step.by == "key":
        routes = [_route(step.routes[name]) for name in step.challengers]
        return np.array([_routed(routes, value) for value in cells(columns[step.key_columns[0]])], np.int64).reshape(
            rows
        )
    texts = key_texts(columns, step.key_columns)
    parts = np.array([fraction(text, step.salt) for text in texts]).reshape(rows)
    places = np.searchsorted(np.cumsum(step.shares), parts, side="right")
    last = max(at for at, share in enumerate(step.shares) if share > 0)
    return np.minimum(places, last)


def key_texts(columns: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return each row's key as one text."""
    keys = [cells(columns[name]) for name in names]
    return [BETWEEN.join(text_of(value) for value in row) for row in zip(*keys, strict=True)]


def fraction(text: str, salt: str = "") -> float:
    """Return a number in 0..1 that a text always has: 64 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{salt}{BETWEEN}{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def cells(column: Any) -> Sequence[Any]:
    """Return a column's values as Python values."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return list(column.to_pylist())
    return list(column.tolist()) if isinstance(column, np.ndarray) else list(column)


def text_of(value: Any) -> str:
    """Return what a key's value is compared and hashed as.

    Raises:
        RowError: ``ROUTE_KEY_TYPE`` for a value that has no such text, as a float.
    """
    if value is None:
        return NULL
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.isoformat()
    raise RowError(
        "ROUTE_KEY_TYPE", f"a key is a whole number, text, bytes, boolean or date; got {type(value).__name__}."
    )


def _route(route: Any) -> Callable[[Any], bool]:
    """Return whether a value is on a route: one of a list, or in a range of numbers."""
    if isinstance(route, Mapping):
        low, high = route.get("at_least", -math.inf), route.get("below", math.inf)
        return lambda value: isinstance(value, Integral) and bool(low <= value < high)
    texts = frozenset(text_of(one) for one in route)
    return lambda value: value is not None and text_of(value) in texts


def _routed(routes: Sequence[Callable[[Any], bool]], value: Any) -> int:
    return next((place for place, is_on in enumerate(routes, 1) if is_on(value)), 0)
