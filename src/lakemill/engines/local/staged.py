"""Files that workers wrote, on their way into a table: as rows of its columns, or as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakemill.engines.local.conforming import conformed
from lakemill.engines.local.own_columns import own_column
from lakemill.engines.local.tables import Snapshot
from lakemill.engines.local.writing import WrittenFile
from lakemill.engines.schemas import is_wider
from lakemill_udfs.files import filesystem

DELETED = own_column("deleted")
"""Column beside the rows of a MERGE: a key to take out."""


def rows_of(files: Iterable[WrittenFile], schema: pa.Schema) -> pa.RecordBatchReader:
    """Return the rows of written files, one batch in memory at a time; columns that they lack are null."""

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            store, inside = filesystem(file.path)
            with pq.ParquetFile(inside, filesystem=store) as opened:
                for batch in opened.iter_batches(use_threads=False):
                    yield conformed(batch, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def marked(rows: pa.RecordBatchReader, deleted: pa.Table | None) -> pa.RecordBatchReader:
    """Return the rows with ``DELETED``, and after them one row, but for the key null, for each deleted key."""
    schema = rows.schema.append(pa.field(DELETED, pa.bool_()))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield batch.append_column(DELETED, pa.repeat(pa.scalar(False), batch.num_rows))
        for batch in deleted.to_batches() if deleted is not None else ():
            columns: list[Any] = [
                batch[field.name].cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(len(batch), field.type)
                for field in rows.schema
            ]
            yield pa.RecordBatch.from_arrays([*columns, pa.repeat(pa.scalar(True), len(batch))], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def may_be_taken(snapshot: Snapshot, files: Sequence[WrittenFile]) -> bool:
    """Return whether files may become the table's as they are: they lie in its folder and have its columns' types."""
    if not all(file.path.startswith(snapshot.location.rstrip("/") + "/") for file in files):
        return False
    return not files or not _narrower(snapshot, files[0])


def _narrower(snapshot: Snapshot, file: WrittenFile) -> bool:
    """Return whether a file's columns are narrower than the table's: one that carries an earlier type."""
    store, inside = filesystem(file.path)
    given = pq.read_schema(inside, filesystem=store)
    return any(
        is_wider(field.type, given.field(field.name).type) for field in snapshot.schema if field.name in given.names
    )
