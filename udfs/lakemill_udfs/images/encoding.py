"""Pillow images to encoded files."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.opening import row_errors
from lakemill_udfs.images.pixels import eight_bits

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


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """Encode an image. What a format cannot hold is converted if no more than transparency or a palette is lost.

    Args:
        image: The pixels.
        kind: One of ``WRITTEN``.
        quality: 1 to 100, for JPEG, WebP and AVIF.

    Raises:
        RowError: ``IMAGE_ENCODE``, for example for 16 bits in a JPEG: nobody but the user knows how to scale them.
    """
    deep = image.mode.startswith(("I", "F"))
    fits = image.mode in WRITABLE[kind]
    if deep and not fits:
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}.")
    # A plain copy: what the old file said of itself, its compression say, is not what the new one is told.
    fitting = image.copy() if fits else _converted(image, kind)
    fitting.info = {name: value for name, value in image.info.items() if name == "transparency" and fits}
    buffer = io.BytesIO()
    try:
        with row_errors():
            fitting.save(buffer, kind, **OPTIONS.get(kind, {"quality": quality}))
    except RowError as error:
        size = f"{image.width} x {image.height}"
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}, {size}.") from error
    return buffer.getvalue()


def _converted(image: Image.Image, kind: str) -> Image.Image:
    clear = "RGBA" in WRITABLE[kind]
    with row_errors():
        plain = eight_bits(image, background=None) if clear else eight_bits(image)
        return plain.convert("RGBA" if clear and plain.mode == "RGBA" else "RGB")
