"""Columns that this engine puts beside a user's while it works, by names that no user's column has."""

from __future__ import annotations

from lakemill.engines.reserved_columns import OWN_PREFIX


def own_column(name: str) -> str:
    """Return the name of a column of the engine's own; jobs refuse sources that have one of these."""
    return OWN_PREFIX + name


FILE, PLACE, ROW = map(own_column, ("file", "place", "row"))
"""Number of a row's file, the row's place in it, and the row's number in a table."""
