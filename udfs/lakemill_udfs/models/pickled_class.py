"""The class of what a pickle holds, read from its first bytes: nothing is loaded, so nothing runs."""

from __future__ import annotations

import pickletools
from itertools import islice
from pathlib import Path

FIRST = 16
"""Instructions to look at: a pickled object begins with its class."""


def pickled_class(path: Path) -> str | None:
    """Return the full name of a pickled object's class; None where it does not begin with one."""
    texts: list[str] = []
    try:
        with path.open("rb") as stream:
            for instruction, argument, _ in islice(pickletools.genops(stream), FIRST):
                if instruction.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if instruction.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except (OSError, ValueError):
        return None  # joblib's compressed files, skops' zips, folders
    return None
