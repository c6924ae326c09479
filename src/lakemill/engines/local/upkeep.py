"""Compacting a table, and removing files that no version needs any more."""

from __future__ import annotations

from deltalake import DeltaTable, WriterProperties

from lakemill.engines.local.tables import Snapshot
from lakemill.engines.local.writing import has_blobs


def optimize_table(snapshot: Snapshot) -> dict[str, int]:
    """Compact a table; blobs stay as they are.

    Returns:
        ``files_added``, ``files_removed`` and the ``version`` after it.
    """
    snapshot.check_writable()
    table = DeltaTable(snapshot.location)
    codec = WriterProperties(compression="UNCOMPRESSED" if has_blobs(snapshot.schema) else "SNAPPY")
    done = table.optimize.compact(writer_properties=codec)
    return {
        "files_added": int(done["numFilesAdded"]),
        "files_removed": int(done["numFilesRemoved"]),
        "version": int(table.version()),
    }


def vacuum_table(snapshot: Snapshot) -> dict[str, int]:
    """Delete files that no version within the table's retention needs.

    Returns:
        The ``version`` after it.
    """
    snapshot.check_writable()
    table = DeltaTable(snapshot.location)
    table.vacuum(dry_run=False, full=True)  # also what a crash left, which no log names
    return {"version": int(table.version())}
