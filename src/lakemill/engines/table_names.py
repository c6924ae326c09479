"""Names of Delta tables: a path if it has a slash or a scheme, else a catalog name."""

from __future__ import annotations

import re
from pathlib import Path

from lakemill_udfs.errors import TableError

SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")


def is_path(table: str) -> bool:
    """Return whether ``table`` is a path (it has a slash or a scheme) rather than a catalog name."""
    return "/" in table or bool(SCHEME.match(table))


def location(table: str) -> str:
    """Return a path table's absolute location; relative paths start at the working folder.

    Raises:
        TableError: ``TABLE_NOT_PATH`` if ``table`` is a catalog name.
    """
    if not is_path(table):
        raise TableError(
            "TABLE_NOT_PATH",
            f"'{table}' is a catalog name and has no path of its own.",
            hint="give a path with a slash, or set the option that needs a path.",
        )
    return table if SCHEME.match(table) else str(Path(table).absolute())


def sibling(table: str, suffix: str) -> str:
    """Return the name of a table beside ``table``, for example ``lake/images`` + ``_quarantine``."""
    return table.rstrip("/") + suffix


def job_name(table: str) -> str:
    """Return the name of a job that is not given one: the last part of its output's name."""
    return re.split(r"[/.]", table.rstrip("/"))[-1] or "lakemill"
