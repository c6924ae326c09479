"""JSON of a model's own form: an object is one row, its values of any length; the answer is a list of such objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakemill_udfs.errors import ConfigError

CUSTOM = "custom-json"

RESULTS = "out"
"""What comes back where nothing else is asked for, each output by its own name."""


def check_format(data_format: str | None) -> None:
    """Look whether there is such a form of data.

    Raises:
        ConfigError: ``INFER_FORMAT``.
    """
    if data_format not in {None, CUSTOM}:
        raise ConfigError("INFER_FORMAT", f"data_format is None or '{CUSTOM}'; got '{data_format}'.")


def columns(content: Any) -> dict[str, list[Any]]:
    """Return objects as columns: one object is one row, a list of them is a row each; what one has not is null.

    Raises:
        ConfigError: ``FILE_CONTENT`` if it is neither.
    """
    rows = [content] if isinstance(content, Mapping) else content
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError(
            "FILE_CONTENT",
            "custom JSON is one object, or a list of objects.",
            hint='{"temperature": [0.2, 0.3], "days": 2}: each value is what one row gives to the input of that name.',
        )
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def asked(dataset: Sequence[str] | str) -> Sequence[str] | str:
    """Return what comes back: the results, or the fields that a caller asks for."""
    return [RESULTS] if tuple(dataset) == ("*",) else dataset


def records(result: Mapping[str, Sequence[Any]], dataset: Sequence[str] | str, separator: str) -> list[dict[str, Any]]:
    """Return one object a row; fields that a caller asked for keep their full names."""
    prefix = f"{RESULTS}{separator}" if tuple(dataset) == ("*",) else ""
    names = [name.removeprefix(prefix) for name in result]
    return [dict(zip(names, row, strict=True)) for row in zip(*result.values(), strict=True)]
