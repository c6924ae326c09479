"""Small pictures: of the rows of an images table, made on executors, and of a report's cards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.files import RowFiles
from lakemill_udfs.images.encoding import encode
from lakemill_udfs.images.opening import DEFAULT_LIMITS, DecodeLimits, as_bytes, open_image, row_errors, upright
from lakemill_udfs.images.pixels import deep_upright, for_the_eye, is_deep

THUMBNAILS = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("thumbnail", pa.binary()),
    ]
)
"""The thumbnails table. ``width`` and ``height`` are the thumbnail's; they and ``thumbnail`` are null where the image
does not decode."""

QUALITY = 80


def make_thumbnails(
    batches: Iterable[pa.RecordBatch], size: int, files: RowFiles, limits: DecodeLimits
) -> Iterator[pa.RecordBatch]:
    """Yield one row of ``THUMBNAILS`` for each image.

    Args:
        batches: Have ``path``, ``sha256`` and ``content``; where ``content`` is null the file is read.
        size: Longest side in pixels; smaller images stay as they are.
        files: Which files may be read.
        limits: What one image may cost.

    Raises:
        RunError: ``STORAGE_READ``.
    """
    for batch in batches:
        paths, hashes, contents = (batch.column(name) for name in ("path", "sha256", "content"))
        rows, read = [], []
        for path, sha256, content in zip(paths, hashes, contents, strict=True):
            small, error = _thumbnail(path.as_py(), content.as_py(), size, files, limits)
            rows.append({"path": path.as_py(), "sha256": sha256.as_py(), **small})
            if not content.is_valid:
                read.append((path.as_py(), error))
        files.check_outage(read)
        yield pa.RecordBatch.from_pylist(rows, schema=THUMBNAILS)


def _thumbnail(
    path: str, content: bytes | None, size: int, files: RowFiles, limits: DecodeLimits
) -> tuple[dict[str, Any], RowError | None]:
    try:
        small = small_image(files.read(path) if content is None else content, size, limits)
        kind = "PNG" if small.mode == "RGBA" else "JPEG"
        encoded = encode(small, kind, QUALITY)
    except RowError as error:
        return {}, error
    return {"width": small.width, "height": small.height, "thumbnail": encoded}, None


def small_image(data: bytes, size: int, limits: DecodeLimits = DEFAULT_LIMITS) -> Image.Image:
    """Return an image small and upright, as ``L``, ``RGB`` or ``RGBA``.

    Args:
        data: An encoded file.
        size: Longest side in pixels; a smaller image stays as it is.
        limits: What the image may cost.

    Raises:
        RowError: as ``open_image`` and ``Opened.load``.
    """
    opened = open_image(as_bytes(data), limits)
    with row_errors():
        opened.image.draft(None, (size * 2, size * 2))  # a large JPEG is decoded at a fraction of its size
        opened.load()
        small = for_the_eye(deep_upright(opened) if is_deep(opened.image) else opened.image)
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        return upright(small, opened.orientation)
