"""Writes to a Delta table: each is one commit with the job's transaction, conditional on the snapshot it is made on.

delta-rs refuses the second of two commits that were made on the same snapshot with the same application id, whatever
else they do; it does not skip a transaction that the snapshot has already, so that is asked here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction
from deltalake.transaction import Transaction as DeltaTransaction

from lakemill.engines.engine import Patch, Transaction
from lakemill.engines.local.commit_errors import coded, conflict, overtaken
from lakemill.engines.local.delta_rs_sql import delta_rs_sql
from lakemill.engines.local.staged import DELETED, marked, may_be_taken, rows_of
from lakemill.engines.local.tables import Snapshot, open_table
from lakemill.engines.local.writing import WrittenFile, check_types, has_blobs
from lakemill.engines.sql import quoted_for_delta_rs as quoted
from lakemill_udfs.errors import RunError, TableError
from lakemill_udfs.plan import KEPT

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.1
SAME_TRANSACTION = re.compile("Concurrent transaction failed|ConcurrentTransaction")

Result = TypeVar("Result")


def create(
    location: str,
    schema: pa.Schema,
    properties: Mapping[str, str] | None = None,
    partition_by: Sequence[str] = (),
) -> Snapshot:
    """Make an empty table unless it is there; the columns keep their metadata.

    Args:
        location: Absolute path or URI.
        schema: The columns.
        properties: Delta's table properties.
        partition_by: The columns that make its folders.

    Raises:
        TableError: ``TABLE_NOT_WRITABLE``, or ``COLUMN_TYPE`` for a type that Spark would not read as it is.
    """
    check_types(location, schema)
    try:
        DeltaTable.create(
            location,
            schema=Schema.from_arrow(schema),
            mode="ignore",
            configuration=dict(properties or {}),
            partition_by=list(partition_by),
            raise_if_key_not_exists=False,  # properties of ours
        )
    except (DeltaError, OSError) as error:
        raise TableError(
            "TABLE_NOT_WRITABLE",
            f"the table '{location}' cannot be made ({type(error).__name__}).",
            hint="check its path and permissions.",
        ) from error
    snapshot = open_table(location)
    assert snapshot is not None  # noqa: S101 -- it was made above
    return snapshot


def add_fields(snapshot: Snapshot, schema: pa.Schema) -> Snapshot:
    """Return the table with the fields of ``schema`` that it lacks, made by a commit without rows."""
    with coded(snapshot):
        write_deltalake(snapshot.location, schema.empty_table(), mode="append", schema_mode="merge")
    return _newest(snapshot)


def widen(snapshot: Snapshot, rows: pa.RecordBatchReader) -> None:
    """Replace all rows by themselves with other types of columns, in one commit.

    Args:
        snapshot: Of the table.
        rows: All of them.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        RunError: ``COMMIT_CONFLICT``.
    """
    snapshot.check_writable()
    base = DeltaTable(snapshot.location, version=snapshot.version)
    try:
        with coded(snapshot):
            write_deltalake(base, rows, mode="overwrite", schema_mode="overwrite", **_options(snapshot.schema, None))
    except CommitFailedError as error:
        raise conflict(snapshot, 1) from error


def append(snapshot: Snapshot, files: Sequence[WrittenFile], transaction: Transaction | None) -> Snapshot | None:
    """Add files that workers wrote; those that lie elsewhere, or belong into partitions, are copied and stay there.

    Args:
        snapshot: Of the table, as it was when the rows were chosen.
        files: What to add; without files there is no commit.
        transaction: Of the job.

    Returns:
        The table with the files; None if the transaction was there already, or there was nothing to add.

    Raises:
        SetupError: ``ENGINE_LOCAL`` if a write would break the table.
        RunError: ``RUN_OVERTAKEN`` if a commit of the same application came between, ``COMMIT_CONFLICT`` if others did.
    """
    if not files or is_done(snapshot, transaction):
        return None
    snapshot.check_writable()

    def write(table: DeltaTable) -> None:
        if snapshot.partition_columns or not may_be_taken(snapshot, files):
            write_deltalake(
                table, rows_of(files, snapshot.schema), mode="append", **_options(snapshot.schema, transaction)
            )
        else:
            actions: list[AddAction | RemoveAction] = [_action(snapshot.location, file) for file in files]
            table.create_write_transaction(
                actions, mode="append", schema=table.schema(), commit_properties=_properties(transaction)
            )

    return _commit(snapshot, transaction, write)


def replace(
    snapshot: Snapshot, files: Sequence[WrittenFile], where: str | None, transaction: Transaction | None = None
) -> Snapshot | None:
    """Replace the rows of a predicate by those of files, which may lie anywhere and stay there.

    Args:
        snapshot: Of the table, as it was when the rows were chosen.
        files: The new rows; without files the others are deleted.
        where: Predicate on the table, in the SQL of ``predicates``; None for all rows.
        transaction: Of the job.

    Returns:
        The table after it; None if the transaction was there already.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        RunError: ``RUN_OVERTAKEN``, ``COMMIT_CONFLICT``.
    """
    if is_done(snapshot, transaction):
        return None
    snapshot.check_writable()
    condition = None if where is None else delta_rs_sql(where, snapshot.schema)

    def write(table: DeltaTable) -> None:
        rows = rows_of(files, snapshot.schema)
        how: dict[str, Any] = {"schema_mode": "overwrite"} if condition is None else {"predicate": condition}
        write_deltalake(table, rows, mode="overwrite", **how, **_options(snapshot.schema, transaction))

    return _commit(snapshot, transaction, write)


def overwrite(snapshot: Snapshot, files: Sequence[WrittenFile], schema: pa.Schema) -> None:
    """Make a table of the rows of files alone, which may lie anywhere and stay there; it gets their columns.

    Args:
        snapshot: Of the table, as it is.
        files: All of its rows.
        schema: Theirs.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        RunError: ``COMMIT_CONFLICT``.
    """
    snapshot.check_writable()

    def write(table: DeltaTable) -> None:
        how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"}
        write_deltalake(table, rows_of(files, schema), **how, **_options(schema, None))

    _commit(snapshot, None, write)


def merge(
    snapshot: Snapshot,
    files: Sequence[WrittenFile],
    key: Sequence[str],
    own: str | None,
    transaction: Transaction | None = None,
    *,
    columns: Sequence[str] | None = None,
    deleted: pa.Table | None = None,
    replaces: str | None = None,
    patch: Patch | None = None,
) -> Snapshot | None:
    """Replace rows by key, add those of other keys, and take rows out, in one commit.

    Args:
        snapshot: Of the table, as it was when the rows were chosen.
        files: The new rows; they may lie anywhere and stay there.
        key: Columns that tell rows apart; each key at most once in ``files`` and ``deleted`` together.
        own: Predicate on the table: only rows for which it holds are touched; None for all.
        transaction: Of the job.
        columns: Which of the table's columns are written, null where the files have none; the others keep their
            values. None for all.
        deleted: Keys of rows to take out.
        replaces: Predicate on the table: of the job's own other rows, those for which it holds are taken out too.
        patch: Change this of the rows, and add none.

    Returns:
        The table after it; None if the transaction was there already.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        TableError: ``KEY_NOT_UNIQUE``.
        RunError: ``RUN_OVERTAKEN``, ``COMMIT_CONFLICT``.
    """
    if is_done(snapshot, transaction):
        return None
    snapshot.check_writable()
    mine = "true" if own is None else delta_rs_sql(own, snapshot.schema, table="t")
    same = " AND ".join(f"(t.{quoted(name)} IS NOT DISTINCT FROM s.{quoted(name)})" for name in key)
    values = {quoted(name): f"s.{quoted(name)}" for name in snapshot.schema.names if columns is None or name in columns}
    updates = values if own is None else values | _keeping(snapshot.schema)
    if patch is not None:
        updates = _patched(patch, snapshot.schema)

    def write(table: DeltaTable) -> None:
        rows = marked(rows_of(files, snapshot.schema), deleted)
        merger = table.merge(
            rows, f"{mine} AND {same}", source_alias="s", target_alias="t", **_options(snapshot.schema, transaction)
        )
        merger.when_matched_delete(f"s.{DELETED}").when_matched_update(updates)
        if patch is None:
            merger.when_not_matched_insert(values, f"NOT s.{DELETED}")
        if replaces is not None:
            others = delta_rs_sql(replaces, snapshot.schema, table="t")
            merger.when_not_matched_by_source_delete(f"{mine} AND ({others})")
        merger.execute()

    return _commit(snapshot, transaction, write, key)


def _keeping(schema: pa.Schema) -> dict[str, str]:
    """Return how ``metadata`` is updated so that ``KEPT`` stays where the new row does not say it."""
    if "metadata" not in schema.names:
        return {}
    kept = {name: f"coalesce(s.metadata['{name}'], t.metadata['{name}'])" for name in KEPT}
    return {quoted("metadata"): _struct(schema.field("metadata").type, lambda name: f"s.metadata['{name}']", kept)}


def _patched(patch: Patch, schema: pa.Schema) -> dict[str, str]:
    """Return how a row is updated so that nothing changes but what a patch names."""
    entries = (
        f"array_element(s.metadata['elapsed_ns'], {place + 1})"
        if known is None
        else f"array_element(t.metadata['elapsed_ns'], {known + 1})"
        for place, known in enumerate(patch.elapsed)
    )
    changed = {name: f"s.metadata['{name}']" for name in patch.metadata}
    changed["elapsed_ns"] = f"make_array({', '.join(entries)})"
    metadata = _struct(schema.field("metadata").type, lambda name: f"t.metadata['{name}']", changed)
    return {quoted(name): f"s.{quoted(name)}" for name in patch.columns} | {quoted("metadata"): metadata}


def _struct(kind: pa.StructType, value: Callable[[str], str], other: Mapping[str, str]) -> str:
    """Return a struct in SQL, field by field."""
    parts = [f"'{part.name}', {other.get(part.name) or value(part.name)}" for part in kind]
    return f"named_struct({', '.join(parts)})"


def set_null(snapshot: Snapshot, field: str, where: str, transaction: Transaction) -> Snapshot | None:
    """Make the field of a struct null in the rows of a predicate, in one commit.

    Args:
        snapshot: Of the table, as it was when the rows were chosen.
        field: Struct and field, as ``metadata.position``.
        where: Predicate on the table, in the SQL of ``predicates``.
        transaction: Of the job.

    Returns:
        The table after it; None if the transaction was there already, or there are no such rows.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        RunError: ``RUN_OVERTAKEN``, ``COMMIT_CONFLICT``.
    """
    if is_done(snapshot, transaction):
        return None
    snapshot.check_writable()
    column, name = field.split(".")
    value = _struct(snapshot.schema.field(column).type, lambda part: f"{quoted(column)}['{part}']", {name: "NULL"})
    condition = delta_rs_sql(where, snapshot.schema)

    def write(table: DeltaTable) -> None:
        table.update(updates={quoted(column): value}, predicate=condition, **_options(snapshot.schema, transaction))

    return _commit(snapshot, transaction, write)


def delete(snapshot: Snapshot, where: str, transaction: Transaction | None = None) -> int | None:
    """Delete the rows of a predicate in one commit; without such rows there is none.

    Args:
        snapshot: Of the table, as it was when the rows were chosen.
        where: Predicate on the table, in the SQL of ``predicates``.
        transaction: Of the job.

    Returns:
        How many rows were deleted; None if there were none, or the transaction was there already.

    Raises:
        SetupError: ``ENGINE_LOCAL``.
        RunError: ``RUN_OVERTAKEN``, ``COMMIT_CONFLICT``.
    """
    if is_done(snapshot, transaction):
        return None
    snapshot.check_writable()
    condition, deleted = delta_rs_sql(where, snapshot.schema), 0

    def write(table: DeltaTable) -> None:
        nonlocal deleted
        deleted = int(table.delete(condition, **_options(snapshot.schema, transaction))["num_deleted_rows"])

    return None if _commit(snapshot, transaction, write) is None else deleted


def is_done(snapshot: Snapshot, transaction: Transaction | None) -> bool:
    """Return whether the table has this transaction, or a later one of the application."""
    last = None if transaction is None else snapshot.transaction_version(transaction.app)
    return transaction is not None and last is not None and last >= transaction.version


def _action(location: str, file: WrittenFile) -> AddAction:
    name = file.path.removeprefix(location.rstrip("/") + "/")
    return AddAction(name, file.size, {}, file.modified_ms, data_change=True, stats=file.statistics)


def _properties(transaction: Transaction | None) -> CommitProperties:
    if transaction is None:
        return CommitProperties()
    return CommitProperties(app_transactions=[DeltaTransaction(transaction.app, transaction.version)])


def _options(schema: pa.Schema, transaction: Transaction | None) -> dict[str, Any]:
    as_they_are = WriterProperties(compression="UNCOMPRESSED")
    return {
        "commit_properties": _properties(transaction),
        "writer_properties": as_they_are if has_blobs(schema) else WriterProperties(compression="SNAPPY"),
    }


def _commit(
    snapshot: Snapshot, transaction: Transaction | None, write: Callable[[DeltaTable], object], key: Sequence[str] = ()
) -> Snapshot | None:
    """Write on the snapshot; where other applications' commits conflict, again on the newest one.

    Conditional on the snapshot all the same: the application's last transaction must be the one of the snapshot.
    """
    last = _last(snapshot, transaction)
    base = DeltaTable(snapshot.location, version=snapshot.version)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with coded(snapshot, key):
                write(base)
        except CommitFailedError as error:
            if SAME_TRANSACTION.search(str(error)):
                raise overtaken(snapshot) from error
            if attempt == ATTEMPTS:
                raise conflict(snapshot, ATTEMPTS) from error
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt)
            base = DeltaTable(snapshot.location)
            if _last(Snapshot(snapshot.location, base), transaction) != last:
                raise overtaken(snapshot) from error
        else:
            committed = _newest(snapshot)
            return committed if committed.version > snapshot.version else None
    raise AssertionError("unreachable")


def _last(snapshot: Snapshot, transaction: Transaction | None) -> int | None:
    return None if transaction is None else snapshot.transaction_version(transaction.app)


def _newest(snapshot: Snapshot) -> Snapshot:
    newest = open_table(snapshot.location)
    if newest is None:
        raise RunError("COMMIT_FAILED", f"the table '{snapshot.location}' is gone.", hint="run it again.")
    return newest
