"""What a table's owner forbids its writers, found before anything is scored where the table says it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakemill.engines.relations import Snapshot
from lakemill_udfs.errors import TableError

APPEND_ONLY = "delta.appendOnly"


def append_only(table: str) -> TableError:
    """Return the error for a table that takes new rows only.

    Args:
        table: For the message.
    """
    return TableError(
        "OUTPUT_APPEND_ONLY",
        f"{table} only takes new rows ({APPEND_ONLY}), and this run would replace or delete some.",
        hint=f"mode: incremental with source.changes: append only adds; or ALTER TABLE ... UNSET TBLPROPERTIES "
        f"('{APPEND_ONLY}').",
    )


def rule_problems(snapshot: Snapshot, coming: pa.Schema, *, replaces: bool) -> Iterator[TableError]:
    """Yield what a table's own rules say against rows to come.

    Args:
        snapshot: The table.
        coming: Columns of the rows.
        replaces: Whether rows are replaced or deleted, and not only added.
    """
    required = [field.name for field in snapshot.schema if not field.nullable and field.name not in coming.names]
    if required:
        yield TableError(
            "OUTPUT_CONSTRAINT",
            f"the table '{snapshot.table}' has columns that must not be null and that this job does not write: "
            f"{', '.join(required)}.",
            hint="ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL; or write to a table of the job's own.",
        )
    if replaces and snapshot.properties.get(APPEND_ONLY, "").lower() == "true":
        yield append_only(f"the table '{snapshot.table}'")
