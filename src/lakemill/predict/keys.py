"""Whether a job's key tells rows apart: looked at in the source or in the batch, before anything is committed."""

from __future__ import annotations

from collections.abc import Sequence

from lakemill.engines.relations import Rows, Scored
from lakemill_udfs.errors import TableError


def check_keys(
    rows: Rows | Scored, key: Sequence[str], table: str, *, what: str = "rows to score", hint: str | None = None
) -> None:
    """Stop where the key does not tell rows apart.

    A batch may hold only one of several rows with a key: rows of the source, only those with the batch's keys, show it.

    Args:
        rows: Rows of the source, or what was scored of it.
        key: Columns that tell rows apart.
        table: Where they are, for messages.
        what: What they are, for messages.
        hint: What to do, if it is not to name another key.

    Raises:
        TableError: ``KEY_NULL`` or ``KEY_NOT_UNIQUE``, with counts.
    """
    named, faults = ", ".join(key), rows.key_faults(key)
    if faults.nulls:
        raise TableError(
            "KEY_NULL",
            f"{faults.nulls} of {faults.rows} {what} of '{table}' have null in their key ({named}); nothing of "
            "this batch was written.",
            hint=hint
            or "leave them out with source.where, or name other columns in source.key; source.changes: append needs "
            "no key.",
        )
    if faults.repeated:
        raise TableError(
            "KEY_NOT_UNIQUE",
            f"{faults.repeated} of {faults.rows} {what} of '{table}' have the same key ({named}) as another "
            "one; nothing of this batch was written.",
            hint=hint
            or "source: {key: [...]} must name columns that tell rows apart; source.changes: append needs no key.",
        )
