"""Tables that ingest and transform write: made if they are not there, and refused if they have other columns."""

from __future__ import annotations

import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.engine import MADE_BY, PLAIN, Engine, Layout
from lakemill.engines.schemas import type_text
from lakemill_udfs.errors import TableError

HINT = "name another output table, or move this one away."


def ensure_table(engine: Engine, table: str, schema: pa.Schema, layout: Layout = PLAIN) -> bool:
    """Make a table, or check that the one that is there has the schema's columns; it may have more.

    Args:
        engine: Where the job runs.
        table: Path or catalog name.
        schema: The columns to have.
        layout: Of a new table; one that is there must have its partitions.

    Returns:
        Whether the table was made, and so is empty.

    Raises:
        TableError: ``TABLE_SCHEMA`` if the table has another schema or other partitions, ``TABLE_NOT_WRITABLE`` if it
            cannot be made.
    """
    there = check_schema(engine, table, schema)
    if not there:
        return engine.make(table, schema, layout)
    snapshot = engine.snapshot(table)
    if snapshot is not None and snapshot.partition_by != layout.partition_by:
        raise TableError(
            "TABLE_SCHEMA",
            f"the table '{table}' is partitioned by {list(snapshot.partition_by)}, not by {list(layout.partition_by)}.",
            hint=HINT,
        )
    return False


def check_own(engine: Engine, table: str, schema: pa.Schema, made_by: str) -> None:
    """Check that a table that a job overwrites whole, if it is there, is the job's own and fits.

    Args:
        engine: Where the job runs.
        table: Path or catalog name.
        schema: The columns to have.
        made_by: The job, as the table's property ``MADE_BY`` says.

    Raises:
        TableError: ``OUTPUT_NOT_OURS`` if something else made the table, ``TABLE_SCHEMA``.
    """
    snapshot = engine.snapshot(table)
    if snapshot is None:
        return
    owner = snapshot.properties.get(MADE_BY)
    if owner != made_by:
        raise TableError(
            "OUTPUT_NOT_OURS",
            f"the table '{table}' was made by {owner or 'something else'}, and '{made_by}' would overwrite it.",
            hint="name another output table; or, if nothing of it is needed, hand it over to this job: "
            f"ALTER TABLE {table_names.in_sql(table)} SET TBLPROPERTIES ('{MADE_BY}' = '{made_by}').",
        )
    check_schema(engine, table, schema)


def check_schema(engine: Engine, table: str, schema: pa.Schema) -> bool:
    """Return whether a table exists, after checking that it has at least the schema's columns.

    Raises:
        TableError: ``TABLE_SCHEMA``.
    """
    snapshot = engine.snapshot(table)
    if snapshot is None:
        return False
    found = {field.name: type_text(field.type) for field in snapshot.schema}
    wrong = [
        f"{field.name} {type_text(field.type)} (got {found.get(field.name, 'no such column')})"
        for field in schema
        if found.get(field.name) != type_text(field.type)
    ]
    if wrong:
        raise TableError(
            "TABLE_SCHEMA", f"the table '{table}' has another schema: expected {', '.join(wrong)}.", hint=HINT
        )
    return True
