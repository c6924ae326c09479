"""What this engine reads and writes of Delta's features, and the refusal of everything else.

A feature that is not named here is refused before anything runs: a reader that ignores one reads wrong rows, and a
writer that ignores one breaks the table for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
from deltalake import DeltaTable

from lakemill_udfs.errors import SetupError

READABLE = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck"}
)
WRITABLE = frozenset(
    {
        "appendOnly",
        "changeDataFeed",
        "deletionVectors",
        "domainMetadata",
        "invariants",
        "timestampNtz",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
COMPUTED = ("delta.generationExpression", "delta.identity.start", "delta.invariants", "CURRENT_DEFAULT")
"""Metadata of columns that a writer has to compute or to check."""

USE_SPARK = "run this job with engine: {name: spark}."


def unsupported(message: str, hint: str = USE_SPARK) -> SetupError:
    """Return the refusal ``ENGINE_LOCAL``.

    Args:
        message: What is missing, in what.
        hint: What to do.
    """
    return SetupError("ENGINE_LOCAL", message, hint=hint)


def check_readable(location: str, table: DeltaTable, schema: pa.Schema) -> None:
    """Refuse a table that would be read wrong.

    Args:
        location: Of the table, for the message.
        table: The table at the version to read.
        schema: Its schema.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
    """
    unknown = sorted(_names(table.protocol().reader_features) - READABLE)
    if unknown:
        raise unsupported(f"the local engine does not read the Delta feature {', '.join(unknown)} of '{location}'.")
    configuration = table.metadata().configuration
    if configuration.get("delta.columnMapping.mode", "none") == "id":
        raise unsupported(f"'{location}' maps its columns by id, which the local engine does not read.")
    for name in table.metadata().partition_columns:
        if pa.types.is_timestamp(schema.field(name).type):
            raise unsupported(f"'{location}' is partitioned by the time '{name}', whose zone its log does not say.")
    if not is_mapped(configuration):
        return
    if table.metadata().partition_columns:
        raise unsupported(f"'{location}' maps its columns and has partitions, which the local engine does not read.")
    for field in schema:
        if any(pa.types.is_nested(inner) for inner in _inside_lists(field.type)):
            raise unsupported(
                f"'{location}' maps the fields inside '{field.name}', which the local engine does not read."
            )


def check_writable(location: str, table: DeltaTable, schema: pa.Schema) -> None:
    """Refuse a table that a write would break.

    Args:
        location: Of the table, for the message.
        table: The table at its newest version.
        schema: Its schema, with the columns' metadata.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
    """
    unknown = sorted(_names(table.protocol().writer_features) - WRITABLE)
    if unknown:
        raise unsupported(f"the local engine does not write the Delta feature {', '.join(unknown)} of '{location}'.")
    configuration = table.metadata().configuration
    problems = ["column mapping"] * is_mapped(configuration)
    problems += [f"the constraint {key}" for key in configuration if key.startswith("delta.constraints.")]
    problems += [f"the computed or checked column '{name}'" for name in computed_columns(schema)]
    if problems:
        raise unsupported(f"the local engine does not write '{location}', which has {', '.join(problems)}.")


def is_mapped(configuration: Mapping[str, str | None]) -> bool:
    """Return whether the table's files name their columns otherwise than its schema does."""
    return configuration.get("delta.columnMapping.mode", "none") != "none"


def computed_columns(schema: pa.Schema) -> Iterator[str]:
    """Yield the columns whose values a writer has to compute or to check."""
    for field in schema:
        if any(key.encode() in (field.metadata or {}) for key in COMPUTED):
            yield field.name


def _inside_lists(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Yield the types of what lists and maps hold, at any depth."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _inside_lists(field.type)
    elif pa.types.is_map(kind):
        yield from (kind.key_type, kind.item_type)
    elif pa.types.is_list(kind):
        yield kind.value_type


def _names(features: list[str] | None) -> set[str]:
    return set(features or ())
