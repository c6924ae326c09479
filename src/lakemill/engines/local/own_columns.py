"""Columns that this engine puts beside a user's while it works, by names that no user's column has."""

from __future__ import annotations


def own_column(name: str) -> str:
    """Return the name of a column of the engine's own: Delta lets users name theirs as they like."""
    return f"__lakemill_{name}"


FILE, PLACE, ROW = map(own_column, ("file", "place", "row"))
"""Number of a row's file, the row's place in it, and the row's number in a table."""
