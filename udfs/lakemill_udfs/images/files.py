"""What one image file is, and whether it is whole, from its bytes and without decoding a pixel.

Codes of a file that does not pass: ``FILE_EMPTY``, ``FILE_TOO_LARGE``, ``FILE_UNREADABLE``, ``IMAGE_UNKNOWN_FORMAT``,
``IMAGE_EXTRA_MISSING``, ``IMAGE_HEADER``, ``IMAGE_TRUNCATED``, ``IMAGE_TOO_MANY_PIXELS``, ``IMAGE_TOO_LARGE`` and
``IMAGE_TOO_COMPLEX``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lakemill_udfs.errors import RowError
from lakemill_udfs.files import check_size
from lakemill_udfs.images.endings import needed_bytes
from lakemill_udfs.images.opening import DecodeLimits, open_image

DRAFT = 8  # a JPEG can be decoded at an eighth of its width and height


@dataclass(frozen=True)
class Limits(DecodeLimits):
    """What a file may be at most, to be stored.

    Args:
        max_bytes: Larger files are rejected as ``FILE_TOO_LARGE``.
        reference_above: Larger files are kept by their path: their bytes stay where they are.
    """

    max_bytes: int = 512 * 2**20
    reference_above: int = 100 * 2**20


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says.

    Args:
        format: A key of ``PLUGINS``, or ``HEIC``.
        width: Pixels, as stored (before any EXIF orientation).
        height: Pixels, as stored.
        mode: Pillow's name of the pixels: ``L``, ``RGB``, ``RGBA``, ``P``, ``I;16``...
        orientation: EXIF orientation, 1 to 8; None if the file has none.
        sha256: Of the whole file, in hexadecimal.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int | None
    sha256: str


def inspect(data: bytes, limits: Limits) -> ImageInfo:
    """Read an image file's header and check that the file is whole.

    Raises:
        RowError: One of this module's codes, with the stage ``read`` of ingest; the message holds no data.
    """
    check_size(len(data), limits.max_bytes)
    opened = open_image(data, limits)
    width, height = opened.image.size
    opened.check_bytes(width * height // (DRAFT**2 if opened.kind == "JPEG" else 1))
    try:
        needed = needed_bytes(opened.kind, data)
    except (ValueError, IndexError) as error:
        raise RowError("IMAGE_HEADER", f"the {opened.kind} is damaged.") from error
    if needed > len(data):
        raise RowError(
            "IMAGE_TRUNCATED",
            f"the {opened.kind} ends too early: expected at least {needed} bytes, got {len(data)}.",
        )
    sha256 = hashlib.sha256(data).hexdigest()
    return ImageInfo(opened.kind, width, height, opened.image.mode, opened.orientation, sha256)
