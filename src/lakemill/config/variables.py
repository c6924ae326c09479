"""``${VAR}`` and ``${VAR:-default}`` in a configuration's values, and keeping what they stand for out of all output.

A secret belongs into the environment: the file names the variable, and messages show its name too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.masking import hide

REFERENCE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(value: Any, where: str = "") -> Any:
    """Return a configuration's value with the variables in its texts replaced; keys are left as they are.

    Args:
        value: What YAML holds: mappings, lists, scalars.
        where: Dotted key of ``value``, for the message.

    Raises:
        ConfigError: ``CONFIG_VARIABLE`` if a variable is not set and has no default.
    """
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: _value(found, where), value)
    if isinstance(value, Mapping):
        return {key: expand(inner, f"{where}.{key}".lstrip(".")) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(expand(inner, f"{where}.{number}") for number, inner in enumerate(value))
    return value


def _value(found: re.Match[str], where: str) -> str:
    escaped, name, default = found.groups()
    if escaped:
        return found[0].removeprefix("$")
    value = os.environ.get(name, "")
    if value:  # as in a shell, a default also stands for an empty variable
        hide(value, name)
        return value
    if default is not None:
        return str(default)
    raise ConfigError(
        "CONFIG_VARIABLE",
        f"'{where}' needs the variable '{name}' of the environment, which is not set or empty.",
        hint=f"export {name}=..., or give a default: ${{{name}:-...}}; $${{{name}}} is the text itself.",
    )
