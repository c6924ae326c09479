"""The one place that writes values and names into SQL; both engines' dialects take these forms, but for one."""

from __future__ import annotations

from collections.abc import Mapping


def sql_text(text: str) -> str:
    """Return ``text`` as a literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted(name: str) -> str:
    """Return a column's name as an identifier, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def quoted_for_delta_rs(name: str) -> str:
    """Return a column's name for DataFusion, which would read it in small letters otherwise."""
    return '"' + name.replace('"', '""') + '"'


def all_equal(values: Mapping[str, str | int]) -> str:
    """Return the condition that columns, or fields of structs, have these values.

    Args:
        values: By the column's name as SQL spells it, ``metadata.run_id``.
    """
    return " AND ".join(
        f"{name} = {sql_text(value) if isinstance(value, str) else value}" for name, value in values.items()
    )
