"""What the public constructors say of an argument of the wrong type: when a step is made, not when rows run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lakemill_udfs.errors import ConfigError


def as_text(value: Any, code: str, what: str) -> str:
    """Return a text, or a path as text.

    Args:
        value: What was given.
        code: Of the error.
        what: Name of the argument.

    Raises:
        ConfigError: ``code`` if it is neither.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(code, f"{what} is a text; got {type(value).__name__}.")
    return value


def must_be_names(value: Any, code: str, what: str, example: str) -> None:
    """Look whether an argument maps names to names.

    Raises:
        ConfigError: ``code`` if it does not.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(
            code,
            f"{what} maps names to names; got {type(value).__name__}.",
            hint=f"{what}: {example}: the name inside the step, then the column or earlier output that feeds it.",
        )
    for name, source in value.items():
        if not isinstance(name, str) or not isinstance(source, str):
            raise ConfigError(
                code,
                f"{what} maps names to names; got {type(name).__name__} to {type(source).__name__}.",
                hint=f"{what}: {example}",
            )


def must_be_declarations(value: Any, code: str) -> None:
    """Look whether outputs are declared as ``{name: {dtype, shape}}``.

    Raises:
        ConfigError: ``code`` if they are not.
    """
    is_mapping = isinstance(value, Mapping)
    for name, inner in value.items() if is_mapping else [("", value)]:
        if not is_mapping or not isinstance(name, str) or not isinstance(inner, Mapping):
            raise ConfigError(
                code,
                f"outputs are declared by name; got {type(inner).__name__}"
                + (f" for '{name}'." if is_mapping else "."),
                hint="outputs: {score: {dtype: float32, shape: [10]}}",
            )


def must_be_outputs(value: Any, code: str) -> None:
    """Look whether outputs are renamed or declared: ``{name: new name}`` or ``{name: {dtype, shape}}``.

    Raises:
        ConfigError: ``code`` if they are neither.
    """
    if not isinstance(value, Mapping):
        must_be_declarations(value, code)
    must_be_declarations({name: inner for name, inner in value.items() if not isinstance(inner, str)}, code)
