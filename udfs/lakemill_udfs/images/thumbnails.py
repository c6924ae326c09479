"""Thumbnails of the rows of an images table, made on executors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.files import read_bytes
from lakemill_udfs.images.pixels import decode, encode

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


def make_thumbnails(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Yield one row of ``THUMBNAILS`` for each image.

    Args:
        batches: Have ``path``, ``sha256`` and ``content``; where ``content`` is null the file is read.
        size: Longest side in pixels; smaller images stay as they are.
    """
    for batch in batches:
        paths, hashes, contents = (batch.column(name) for name in ("path", "sha256", "content"))
        rows = [
            {"path": path.as_py(), "sha256": sha256.as_py(), **_thumbnail(path.as_py(), content.as_py(), size)}
            for path, sha256, content in zip(paths, hashes, contents, strict=True)
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=THUMBNAILS)


def _thumbnail(path: str, content: bytes | None, size: int) -> dict[str, Any]:
    try:
        image = decode(read_bytes(path) if content is None else content, at_least=(size * 2, size * 2))
    except (RowError, FileNotFoundError):
        return {}
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    small = image.convert(mode)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return {
        "width": small.width,
        "height": small.height,
        "thumbnail": encode(small, "PNG" if small.mode == "RGBA" else "JPEG", QUALITY),
    }
