"""Functions of the user's in a pipeline: named by import path where they have one, which lets them travel."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from lakemill_udfs.errors import ConfigError

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def as_import_path(function: Any) -> Any:
    """Return ``module:function`` for a function that a module holds; anything else as it is.

    A lambda, a function of a notebook or of another function has no import path: a worker could not find it.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not callable(function) or module in (None, "__main__"):
        return function
    is_held = getattr(sys.modules.get(str(module)), name, None) is function
    return f"{module}:{name}" if is_held else function


def name_of(function: str | Callable[..., Any]) -> str:
    """Return what to call a function in messages."""
    return function if isinstance(function, str) else str(getattr(function, "__qualname__", type(function).__name__))


def must_travel(function: str | Callable[..., Any], where: str) -> str:
    """Return the import path of a function that is needed elsewhere.

    Args:
        function: Its import path, or the function itself if it has none.
        where: Where to, for the message.

    Raises:
        ConfigError: ``FUNCTION_LOCAL`` if it has no import path.
    """
    if isinstance(function, str):
        return function
    raise ConfigError(
        "FUNCTION_LOCAL",
        f"'{name_of(function)}' has no import path, so it cannot travel to {where}; it works in `infer` only.",
        hint="put the function into a module, for example features.py, and write features:scale",
    )
