"""Pillow images to encoded files."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.opening import row_errors
from lakemill_udfs.images.pixels import eight_bits, is_deep

WRITTEN = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")
"""Formats that are written. An image of another format is written as PNG, unless one is asked for."""

WRITABLE = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "GIF": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
}
"""Modes that a format takes as they are."""

OPTIONS: dict[str, dict[str, Any]] = {"TIFF": {"compression": "tiff_adobe_deflate"}}


def fitted(image: Image.Image, kind: str) -> Image.Image:
    """Return an image in a mode that a format holds, if no more than transparency or a palette is lost.

    Args:
        image: The pixels.
        kind: One of ``WRITTEN``.

    Raises:
        RowError: ``IMAGE_ENCODE``, for example for 16 bits in a JPEG: nobody but the user knows how to scale them.
    """
    if image.mode in WRITABLE[kind]:
        return image
    if is_deep(image):
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}.")
    clear = "RGBA" in WRITABLE[kind]
    with row_errors():
        plain = eight_bits(image, background=None) if clear else eight_bits(image)
        return plain.convert("RGBA" if clear and plain.mode == "RGBA" else "RGB")


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """Encode an image, which is ``fitted`` first.

    Args:
        image: The pixels.
        kind: One of ``WRITTEN``.
        quality: 1 to 100, for JPEG, WebP and AVIF.

    Raises:
        RowError: ``IMAGE_ENCODE``.
    """
    # A plain copy: what the old file said of itself, its compression say, is not what the new one is told.
    plain = fitted(image, kind).copy()
    plain.info = {name: value for name, value in plain.info.items() if name == "transparency"}
    buffer = io.BytesIO()
    try:
        with row_errors():
            plain.save(buffer, kind, **OPTIONS.get(kind, {"quality": quality}))
    except RowError as error:
        size = f"{image.width} x {image.height}"
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}, {size}.") from error
    return buffer.getvalue()
