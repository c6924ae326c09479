"""Quoting for SQL; each engine's dialect takes these forms."""

from __future__ import annotations


def sql_text(text: str) -> str:
    """Return ``text`` as a literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted(name: str) -> str:
    """Return a column's name as an identifier, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"
