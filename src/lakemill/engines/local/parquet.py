"""Opening Parquet files, with the failures of storage as errors that have a code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from lakemill_udfs.errors import RunError
from lakemill_udfs.files import URI, filesystem


@contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file while the context lasts.

    Args:
        path: Absolute path or URI.

    Raises:
        RunError: as ``storage_errors``.
    """
    with storage_errors(path):
        store, inside = filesystem(path)
        # A local file is mapped: what no column needs is never read. Times of INT96, Spark's default, are kept in
        # microseconds, as nanoseconds would overflow.
        source = inside if not URI.match(path) else store.open_input_file(inside)
        with pq.ParquetFile(source, memory_map=True, coerce_int96_timestamp_unit="us") as opened:
            yield opened


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Say in our words what fails while a file is opened or read.

    Raises:
        RunError: ``SOURCE_VERSIONS_GONE`` if the file is not there any more, ``STORAGE_READ`` if it cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(
            "SOURCE_VERSIONS_GONE",
            f"the file '{path}' of the table is gone: it was vacuumed while this version was in use.",
            hint="run the job again; if it says so again, mode: missing scores what the table has now. "
            "delta.deletedFileRetentionDuration keeps files longer.",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            "STORAGE_READ",
            f"the file '{path}' cannot be read ({type(error).__name__}).",
            hint="check the storage and its permissions; a damaged file is restored from a backup or scored as new.",
        ) from error


def parquet_rows(path: str) -> int:
    """Return how many rows a file holds, by its footer.

    Raises:
        RunError: as ``open_parquet``.
    """
    with open_parquet(path) as opened:
        return int(opened.metadata.num_rows)
