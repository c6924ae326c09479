"""The source of a predict job: its rows, its key, and what is wrong with the columns that the job names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, location_of, opened
from lakemill.engines.relations import Rows, Snapshot
from lakemill.engines.reserved_columns import reserved_columns
from lakemill.engines.schemas import type_text
from lakemill.engines.table_names import not_delta
from lakemill.predict.by_row import where_problems
from lakemill_udfs.errors import ConfigError, TableError


@dataclass(frozen=True)
class Source:
    """An opened source.

    Args:
        snapshot: The table at the version asked for.
        rows: Its rows, filtered.
        key: Columns that tell rows apart.
    """

    snapshot: Snapshot
    rows: Rows
    key: tuple[str, ...]

    @property
    def location(self) -> str:
        """Absolute path or URI of the table."""
        return location_of(self.snapshot)


def open_source(config: PredictConfig, engine: Engine) -> Source:
    """Open the source table and check what is said of it.

    Raises:
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``, ``COLUMN_MISSING``, ``KEY_TYPE``,
            ``SOURCE_NOT_DELTA`` if only ``full`` could score it.
        ConfigError: ``WHERE_INVALID`` if the predicate does not parse or does not fit, ``WHERE_NOT_BY_ROW``,
            ``KEY_MISSING`` without a key, ``COLUMN_RESERVED``.
    """
    snapshot = opened(engine, config.source.table)
    asked = config.source.version
    if snapshot.kind != "delta":
        if config.mode != "full" or asked is not None:
            raise not_delta(config.source.table, snapshot.kind)
    elif config.mode != "incremental":
        # By its number: else a commit that comes now could be read and not be named, or the other way round.
        snapshot = opened(engine, config.source.table, snapshot.version if asked is None else asked)
    for problem in source_problems(config, snapshot.schema):
        raise problem
    return Source(snapshot, kept_rows(config, engine, snapshot), source_key(config, snapshot.schema.names))


def kept_rows(config: PredictConfig, engine: Engine, snapshot: Snapshot) -> Rows:
    """Return the rows of a source that ``source.where`` keeps.

    Raises:
        ConfigError: ``WHERE_INVALID``.
    """
    rows = engine.rows(snapshot)
    return rows if config.source.where is None else rows.where(config.source.where)


def source_key(config: PredictConfig, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that tell rows apart: those named, or ``path``."""
    return config.source.key or (("path",) if "path" in columns else ())


def passed_columns(config: PredictConfig, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the source that stand in the predictions too: key, carried ones, groups.

    Args:
        config: The job.
        columns: Of the source.
    """
    return tuple(dict.fromkeys((*source_key(config, columns), *config.source.carried, *config.engine.group_by)))


def source_problems(config: PredictConfig, schema: pa.Schema) -> Iterator[ConfigError]:
    """Yield what is wrong with the columns that a job names.

    Args:
        config: The job.
        schema: Of the source.
    """
    columns = schema.names
    table, key = config.source.table, source_key(config, columns)
    if not key:
        yield ConfigError(
            "KEY_MISSING",
            f"source '{table}' has no column 'path', so its key must be named; it has: {', '.join(columns)}.",
            hint="source: {key: [id]}, or --key id",
        )
    for name in (*key, *config.source.carried, *config.engine.group_by):
        if name not in columns:
            yield TableError(
                "COLUMN_MISSING",
                f"source '{table}' has no column '{name}'; it has: {', '.join(columns)}.",
                hint="source.key, source.columns and engine.group_by name columns of the source.",
            )
    yield from where_problems(config, columns)
    follows_feed = config.source.changes == "upsert" and config.source.change_column is None
    feed = "source.changes: upsert reads it" if follows_feed else None
    yield from reserved_columns(schema, table, feed=feed)
    yield from unfit_keys(schema, [name for name in (*key, *config.engine.group_by) if name in columns], table)


def unfit_keys(schema: pa.Schema, key: Sequence[str], table: str) -> Iterator[TableError]:
    """Yield an error for each column of a key whose values cannot be compared.

    Args:
        schema: Of the source.
        key: Columns that tell rows apart; all are in it.
        table: The source, for messages.
    """
    for name in key:
        if not _is_comparable(schema.field(name)):
            kind = "variant" if _is_variant(schema.field(name)) else type_text(schema.field(name).type)
            yield TableError(
                "KEY_TYPE",
                f"column '{name}' of '{table}' is no key: values of type {kind} cannot be compared.",
                hint="name other columns in source.key: numbers, texts, bytes, dates, times.",
            )


def _is_comparable(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return not _is_variant(field) and all(_is_comparable(inner) for inner in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_comparable(kind.value_field)
    return not (pa.types.is_map(kind) or pa.types.is_null(kind))


def _is_variant(field: pa.Field) -> bool:
    """Return whether a struct is Spark's or Delta's variant."""
    kind = field.type
    return (
        pa.types.is_struct(kind)
        and {inner.name for inner in kind} == {"value", "metadata"}
        and all(pa.types.is_binary(inner.type) or pa.types.is_large_binary(inner.type) for inner in kind)
    )
