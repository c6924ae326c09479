"""What keeps a commit of the local engine from landing, as errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from deltalake.exceptions import CommitFailedError, DeltaError

from lakemill.engines.full_text import kept_text
from lakemill.engines.local.tables import Snapshot
from lakemill_udfs.errors import RunError, TableError


@contextlib.contextmanager
def coded(snapshot: Snapshot, key: Sequence[str] = ()) -> Iterator[None]:
    """Turn what delta-rs raises in a commit into an error of ours; a conflict of two commits goes on as it is.

    Raises:
        TableError: ``KEY_NOT_UNIQUE``.
        RunError: ``COMMIT_FAILED``.
    """
    try:
        yield
    except CommitFailedError:
        raise
    except DeltaError as error:
        if "multiple source rows" in str(error):
            raise TableError(
                "KEY_NOT_UNIQUE",
                f"several rows to merge into '{snapshot.location}' have the same {', '.join(key)}.",
                hint="source: {key: [...]} must name columns that tell rows apart.",
            ) from error
        raise RunError(
            "COMMIT_FAILED",
            f"delta-rs did not write to '{snapshot.location}' ({type(error).__name__}).",
            hint=kept_text(str(error), "delta-rs's"),
        ) from error


def conflict(snapshot: Snapshot, attempts: int) -> RunError:
    """Return the error of a commit that others were faster than in each attempt."""
    return RunError(
        "COMMIT_CONFLICT",
        f"other jobs changed '{snapshot.location}' in all {attempts} attempts to write to it.",
        hint="run it again: nothing of this batch was written. OPTIMIZE and DELETE conflict most.",
    )


def overtaken(snapshot: Snapshot) -> RunError:
    """Return the error of a commit whose transaction another run has made."""
    return RunError(
        "RUN_OVERTAKEN",
        f"another run of this job was committed to '{snapshot.location}' first; this one wrote nothing.",
        hint="run it again.",
    )
