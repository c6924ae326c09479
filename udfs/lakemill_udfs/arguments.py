"""What the public constructors say of an argument of the wrong type: when a step is made, not when rows run."""

from __future__ import annotations

import os
from collections import abc
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lakemill_udfs.errors import ConfigError

EXAMPLES = {
    "inputs": "inputs: {x: pixels}: the name inside the step, then the column or earlier output that feeds it.",
    "outputs": "outputs: {score: {dtype: float32, shape: [10]}}",
}


def check_arguments(value: Any, code: str) -> None:
    """Look whether a dataclass's arguments are of the types that it declares.

    Args:
        value: An instance.
        code: Of the error.

    Raises:
        ConfigError: ``code`` if one is not; the message names it, what was expected and the type that it got.
    """
    kind_of_value: Any = type(value)
    for name, kind in _kinds(kind_of_value).items():
        given = getattr(value, name)
        if not _fits(given, kind):
            raise ConfigError(
                code,
                f"{type(value).__name__}: '{name}' is {_said(kind)}; got {_seen(given, kind)}.",
                hint=EXAMPLES.get(name),
            )


def as_text(value: Any) -> Any:
    """Return a path as text; anything else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@cache
def _kinds(kind: Any) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(value is one or (type(value) is type(one) and value == one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if origin is abc.Mapping:
        return isinstance(value, abc.Mapping) and all(
            _fits(key, inner[0]) and _fits(one, inner[1]) for key, one in value.items()
        )
    plain = {int: Integral, float: Real, Any: object}.get(kind, kind)
    return isinstance(value, plain) and not (kind in (int, float) and isinstance(value, bool))


def _said(kind: Any) -> str:
    """Return a type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_said(one) for one in inner)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple:
        return f"a list of {_said(inner[0])}" if inner[-1] is Ellipsis else f"{len(inner)} values"
    if origin is abc.Mapping:
        return f"a mapping of names to {_said(inner[1])}"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}.get(
        kind, getattr(kind, "__name__", "any value")
    )


def _seen(value: Any, kind: Any) -> str:
    """Return the type of what was given; of a mapping or list the type of what does not fit in it."""
    if isinstance(value, abc.Mapping) and any(get_origin(one) is abc.Mapping for one in (kind, *get_args(kind))):
        return f"a mapping with {', '.join(sorted({type(one).__name__ for one in value.values()}))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(sorted({type(one).__name__ for one in value})) or 'nothing'}"
    return repr(value) if get_origin(kind) is Literal and isinstance(value, str) else type(value).__name__
