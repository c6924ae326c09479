"""Functions of the user's in a pipeline: named by import path where they have one, which lets them travel."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

from lakemill_udfs.errors import ConfigError

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
DICT = re.compile(r"(typing\.|t\.|collections\.abc\.|abc\.)?(dict|Dict|Mapping|MutableMapping|Arrays)\b")
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def as_import_path(function: Any) -> Any:
    """Return ``module:function`` for a function that a module holds; anything else as it is.

    A lambda, a function of a notebook or of another function has no import path: a worker could not find it.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not callable(function) or module in (None, "__main__"):
        return function
    held = getattr(_module(str(module)), name, None)
    return f"{module}:{name}" if held is function or _is_newer(held, function) else function


def _module(name: str) -> ModuleType | None:
    """Return a function's module; one that was forgotten because its package was edited is imported again."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except ImportError:  # made by a program, or its file is gone: it has no import path
        return None


def _is_newer(held: Any, function: Any) -> bool:
    """Return whether what a module holds is a function of an edited file, imported anew, and ``function`` the older."""
    code = [getattr(one, "__code__", None) for one in (held, function)]
    files = {one and one.co_filename for one in code}
    return None not in files and len(files) == 1 and held.__qualname__ == function.__qualname__


def name_of(function: str | Callable[..., Any]) -> str:
    """Return what to call a function in messages."""
    return function if isinstance(function, str) else str(getattr(function, "__qualname__", type(function).__name__))


FORMS = {"DataFrame": "frame", "RecordBatch": "batch", "Table": "table"}
"""What a function's first annotation may name besides a dict, and what the function is given."""


def form_of(function: Callable[..., Any], inputs: Collection[str]) -> str:
    """Return what a function takes: ``frame``, ``batch``, ``table``, ``names`` (one argument an input) or ``dict``.

    Its first parameter's annotation says so; without one it is ``names`` where the parameters are named as the inputs.

    Args:
        function: The function.
        inputs: Names of its inputs, as far as they are known.

    Raises:
        ConfigError: ``PYTHON_STEP`` if its parameters fit none of these.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return "dict"
    annotation = _annotation(parameters)
    for sign, form in FORMS.items():
        if annotation.partition("[")[0].endswith(sign):
            return form
    if DICT.match(annotation):
        return "dict"
    is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    required = [one.name for one in parameters if one.default is one.empty and one.kind not in VARIADIC]
    accepted = {one.name for one in named}
    if inputs and set(required) <= set(inputs) and (is_open or set(inputs) <= accepted) and (named or is_open):
        return "names"
    can_take_one = (
        len(required) <= 1
        and parameters
        and parameters[0].kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    )
    if can_take_one or not inputs:
        return "dict"
    raise ConfigError(
        "PYTHON_STEP",
        f"'{name_of(function)}' takes ({', '.join(one.name for one in parameters)}); its inputs: {', '.join(inputs)}.",
        hint="it takes one argument for each input, by name, or one dict, DataFrame or Table of them all.",
    )


def _annotation(parameters: list[inspect.Parameter]) -> str:
    """Return what the first parameter is annotated as; nothing without one."""
    first = "" if not parameters or parameters[0].annotation is inspect.Parameter.empty else parameters[0].annotation
    return first if isinstance(first, str) else str(getattr(first, "__qualname__", str(first)))


def asks_for_dict(function: Callable[..., Any]) -> bool:
    """Return whether a function's first parameter is annotated as a dict."""
    try:
        return DICT.match(_annotation(list(inspect.signature(function).parameters.values()))) is not None
    except (TypeError, ValueError):  # some builtins have no signature
        return False


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
