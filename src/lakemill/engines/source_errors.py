"""What a source's history can say against going on with it, in the same words on every engine."""

from __future__ import annotations

from lakemill_udfs.errors import RunError


def source_changed(table: str) -> RunError:
    """Return the error for a source whose rows were not only added to."""
    return RunError(
        "SOURCE_CHANGED",
        f"rows of the source '{table}' were changed or deleted, or its schema was, since the last run.",
        hint="source: {changes: upsert} follows changes; mode: full scores the table as it is now.",
    )


def versions_gone(table: str) -> RunError:
    """Return the error for a source of which a job has not seen all versions and no longer can."""
    return RunError(
        "SOURCE_VERSIONS_GONE",
        f"versions of the source '{table}' that this job has not seen were vacuumed or have no change feed.",
        hint="mode: full scores the table as it is now, then this mode goes on; with changes: append so does "
        "mode: missing, which scores rows without a prediction.",
    )
