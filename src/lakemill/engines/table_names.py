"""Names of Delta tables: a path if it has a slash or a scheme, else a catalog name."""

from __future__ import annotations

import re
from pathlib import Path

from lakemill.config.base import LONGEST_NAME
from lakemill.engines.sql import quoted
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
    last = re.split(r"[/.]", table.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9_-]", "_", last)[:LONGEST_NAME] or "lakemill"


def in_sql(table: str) -> str:
    """Return the quoted name for SQL: a path as ``delta.`...` ``."""
    if is_path(table):
        return f"delta.{quoted(location(table))}"
    return ".".join(quoted(part.strip("`")) for part in table.split("."))
