"""Names that no column of a source may have: Delta or an engine puts columns of these names beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakemill_udfs.errors import ConfigError

CHANGE_TYPE, COMMIT_VERSION = "_change_type", "_commit_version"
FEED_COLUMNS = (CHANGE_TYPE, COMMIT_VERSION, "_commit_timestamp")
"""Columns of Delta's change feed, beside the table's own."""

OWN_PREFIX = "__lakemill_"
"""What the names of an engine's own columns begin with."""


def reserved_columns(schema: pa.Schema, table: str, *, feed: str | None = None) -> Iterator[ConfigError]:
    """Yield an error for each column that has a reserved name; names that differ in letter case only are one.

    Args:
        schema: Of the source.
        table: The source, for messages.
        feed: What needs a change feed of its columns; None if nothing does.
    """
    for name in schema.names:
        if name.lower().startswith(OWN_PREFIX):
            yield _reserved(table, name, f"names that begin with {OWN_PREFIX} are Lakemill's own", "rename it.")
        elif feed is not None and name.lower() in FEED_COLUMNS:
            why = f"Delta's change feed has a column of that name, and {feed}"
            hint = "rename it; a predict job may follow changes by a source.change_column instead, without the feed."
            yield _reserved(table, name, why, hint)


def _reserved(table: str, name: str, why: str, hint: str) -> ConfigError:
    return ConfigError("COLUMN_RESERVED", f"'{table}' has a column '{name}': {why}.", hint=hint)
