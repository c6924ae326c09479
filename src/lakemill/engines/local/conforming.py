"""What a file holds, as the table's schema has it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

PHYSICAL_NAME = b"delta.columnMapping.physicalName"
FILE_NOTES = (b"delta.columnMapping.", b"delta.typeChanges")


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of a file with the table's columns; what the file lacks, as columns that came later, is null."""
    arrays = [conformed_column(column(batch, name_in_file(field)), field, batch.num_rows) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Return a column; None if there is none of this name."""
    return batch.column(name) if name in batch.schema.names else None


def conformed_column(array: pa.Array | None, field: pa.Field, rows: int) -> pa.Array:
    """Return a file's column as the table has it: fields named as there, and null where the file has none."""
    kind = field.type
    if array is None:
        return pa.nulls(rows, kind)
    if pa.types.is_struct(kind):
        present = {inner.name for inner in array.type}
        values = [
            conformed_column(
                pc.struct_field(array, [name]) if (name := name_in_file(child)) in present else None, child, rows
            )
            for child in kind
        ]
        return pa.StructArray.from_arrays(values, fields=list(kind), mask=array.is_null())
    return array if array.type == kind else array.cast(kind)


def name_in_file(field: pa.Field) -> str:
    """Return what a field is called in files, where Delta maps columns."""
    mapped = (field.metadata or {}).get(PHYSICAL_NAME)
    return str(field.name if mapped is None else mapped.decode())


def of_rows(field: pa.Field) -> pa.Field:
    """Return a column as its rows have it, without what Delta notes of the files behind it, as their names for it.

    A table that is made of such rows has its own files.
    """
    kind, noted = field.type, field.metadata or {}
    if pa.types.is_struct(kind):
        kind = pa.struct([of_rows(inner) for inner in kind])
    kept = {name: value for name, value in noted.items() if not name.startswith(FILE_NOTES)}
    return pa.field(field.name, kind, field.nullable, metadata=kept or None)


def without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return text and bytes in the layout that Arrow's functions know; delta-rs calls them views in its files."""
    schema = pa.schema([field.with_type(_without_view(field.type)) for field in batch.schema])
    return batch if schema.equals(batch.schema) else batch.cast(schema)


def _without_view(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_view(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_view(kind.value_type)))
    plain: dict[pa.DataType, pa.DataType] = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return plain.get(kind, kind)
