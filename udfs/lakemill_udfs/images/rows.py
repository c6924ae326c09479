"""Rows of the images table, made on executors from a listing of files.

Both functions are for ``mapInArrow``: batches of ``LISTING`` in, batches of ``IMAGES`` or ``REJECTED`` out. A file is
read, inspected and sent once; a batch holds about ``BATCH_BYTES`` of images, so a task needs that and one file in
memory (on an object store ``REMOTE_AHEAD_BYTES`` more). A file that is no longer there is in neither result. One that
this machine cannot open is rejected; an object store that does not answer fails the task, which Spark then repeats.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from lakemill_udfs.errors import RowError
from lakemill_udfs.files import RowFiles, check_size, local_path, read_bytes
from lakemill_udfs.images.files import ImageInfo, Limits, inspect

BATCH_BYTES = 8 * 2**20
BATCH_ROWS = 1024
REMOTE_READS = 16  # an object store answers after tens of milliseconds, whatever the size
REMOTE_AHEAD_BYTES = 64 * 2**20

TIME = pa.timestamp("us", tz="UTC")
LISTING = pa.schema(
    [
        ("path", pa.string()),
        ("length", pa.int64()),
        ("modification_time", TIME),
        ("label", pa.string()),
        ("label_index", pa.int32()),
    ]
)
"""One listed file."""

IMAGES = pa.schema(
    [
        *LISTING,
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("orientation", pa.int32()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("content", pa.binary()),
    ]
)
"""The images table; the bytes come last, behind every column that a query filters on."""

REJECTED = pa.schema(
    [
        ("path", pa.string()),
        ("length", pa.int64()),
        ("modification_time", TIME),
        ("code", pa.string()),
        ("message", pa.string()),
    ]
)
"""Files that are no usable image, and why."""

Row = dict[str, Any]


def read_images(batches: Iterable[pa.RecordBatch], limits: Limits) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the files that are good images; the others are left out.

    Args:
        batches: Rows of ``LISTING``.
        limits: Sizes from which a file is rejected, or kept by its path (``content`` is null).

    Yields:
        Batches of ``IMAGES``, each of about ``BATCH_BYTES``.
    """
    rows: list[Row] = []
    batch_bytes = 0
    for row, data in _files(batches, limits):
        try:
            rows.append(_image_row(row, data, limits))
        except RowError:
            continue  # found again, by `find_rejected`, once the good rows are committed
        batch_bytes += len(rows[-1]["content"] or b"")
        if batch_bytes >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
            yield pa.RecordBatch.from_pylist(rows, schema=IMAGES)
            rows, batch_bytes = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=IMAGES)


def find_rejected(batches: Iterable[pa.RecordBatch], limits: Limits) -> Iterator[pa.RecordBatch]:
    """Yield the files that are no usable image, with the code and message that say why.

    Args:
        batches: Rows of ``LISTING``.
        limits: As in ``read_images``.

    Yields:
        Batches of ``REJECTED``.
    """
    rows = []
    for row, data in _files(batches, limits):
        try:
            _image_row(row, data, limits)
        except RowError as error:
            known = {name: row[name] for name in ("path", "length", "modification_time")}
            rows.append(known | {"code": error.code, "message": error.message})
    yield pa.RecordBatch.from_pylist(rows, schema=REJECTED)


Content = bytes | RowError


def _image_row(row: Row, data: Content, limits: Limits) -> Row:
    if isinstance(data, RowError):
        raise data
    info: ImageInfo = inspect(data, limits)
    content = data if len(data) <= limits.reference_above else None
    return row | info.__dict__ | {"length": len(data), "content": content}


def _files(batches: Iterable[pa.RecordBatch], limits: Limits) -> Iterator[tuple[Row, Content]]:
    """Pair each listed file with its bytes, or with why it cannot be read; leave out files that are gone."""
    listed = (row for batch in batches for row in batch.to_pylist())
    for row, data in _read_ahead(listed, limits):
        if data is not None:
            yield row, data


def _read_ahead(listed: Iterator[Row], limits: Limits) -> Iterator[tuple[Row, Content | None]]:
    waiting: deque[tuple[Row, Future[Content | None]]] = deque()
    ahead_bytes = 0
    with ThreadPoolExecutor(REMOTE_READS) as pool:
        for row in listed:
            if local_path(row["path"]) is not None:  # a local disk answers at once, and a thread would only cost
                yield row, _read(row, limits)
                continue
            waiting.append((row, pool.submit(_read, row, limits)))
            ahead_bytes += row["length"]
            while len(waiting) >= REMOTE_READS or ahead_bytes > REMOTE_AHEAD_BYTES:
                first, future = waiting.popleft()
                ahead_bytes -= first["length"]
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _read(row: Row, limits: Limits) -> Content | None:
    try:
        check_size(row["length"], limits.max_bytes)
        return read_bytes(row["path"], limits.max_bytes)
    except RowError as error:
        return error
    except FileNotFoundError:
        return None
    except OSError as error:
        if local_path(row["path"]) is None and not RowFiles.answers(row["path"]):
            raise  # the storage is out of order; else it is this file, archived or forbidden
        reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return RowError("FILE_UNREADABLE", f"the file cannot be opened: {reason}.")
