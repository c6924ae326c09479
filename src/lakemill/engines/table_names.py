"""Names of Delta tables: a path if it has a slash or a scheme, else a catalog name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

from lakemill.config.base import LONGEST_NAME
from lakemill.engines.delta_log import FOLDER
from lakemill.engines.sql import quoted
from lakemill_udfs.errors import TableError
from lakemill_udfs.files import is_there, local_path

ENGINE_ELSEWHERE = ("SPARK_REMOTE", "PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION", "HADOOP_CONF_DIR")
"""Variables of an environment in which a plain path need not be one on this disk."""

Suffix = Literal["_quarantine", "_runs", "_tasks", "_promotions", "_checkpoint", "_report.html"]
"""What there is beside an output, by the end of its name."""

MEASURES: tuple[Suffix, ...] = ("_runs", "_tasks")
"""What measurements of runs are in."""

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


def here(table: str) -> str | None:
    """Return a table's location if that is on this machine's disk, as far as this process knows; else None."""
    if not is_path(table) or any(name in os.environ for name in ENGINE_ELSEWHERE):
        return None
    place = location(table)
    return None if local_path(place) is None else place


def not_found(table: str) -> TableError:
    """Return the error for a table that is not there."""
    where = f" (looked in {location(table)})." if is_path(table) else " in the catalog."
    return TableError(
        "TABLE_NOT_FOUND",
        f"there is no Delta table '{table}'{where}",
        hint="paths need a slash and start at the working folder; `lakemill ingest` makes a table of images.",
    )


def not_delta(table: str, kind: str) -> TableError:
    """Return the error for something that has rows but no versions.

    Args:
        table: Its name.
        kind: What it is: ``view``, ``parquet`` ...
    """
    what = "a view" if kind == "view" else f"a {kind} table"
    return TableError(
        "SOURCE_NOT_DELTA",
        f"'{table}' is {what}: it keeps no versions by which a job could tell what is new, read or written.",
        hint="mode: full scores a view or another table whole; or name the Delta table behind it.",
    )


def check_path(table: str) -> None:
    """Refuse a path on this machine's disk where no Delta table is, before an engine starts.

    Stores and catalogs are left to the engine, and so is everything where one is up already or runs elsewhere: what a
    plain path means is its affair then.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
    """
    if not is_path(table) or SCHEME.match(table) or _has_engine():
        return
    if not is_there(Path(location(table)) / FOLDER):
        raise not_found(table)


def _has_engine() -> bool:
    session: Any = getattr(sys.modules.get("pyspark.sql"), "SparkSession", None)
    return any(name in os.environ for name in ENGINE_ELSEWHERE) or bool(session and session.getActiveSession())


def sibling(table: str, suffix: Suffix) -> str:
    """Return the name of what stands beside a table, for example ``lake/images`` + ``_quarantine``."""
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
