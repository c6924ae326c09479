"""Encoded image files to upright Pillow images and back, for thumbnails and transforms."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.files import PLUGINS


def decode(data: bytes, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image and turn it upright by its EXIF orientation.

    Args:
        data: An encoded file.
        at_least: Width and height that are enough: a large JPEG is then decoded at a fraction of its size.

    Raises:
        RowError: ``IMAGE_DECODE``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ingest has judged the size already
            image: Image.Image = Image.open(io.BytesIO(data), formats=list(PLUGINS))
            if at_least:
                image.draft(None, at_least)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except MemoryError:
        raise  # no memory for one image is a broken environment, not a broken row
    except Exception as error:  # Pillow's plugins raise anything on a damaged file; it is this row's fault
        raise RowError("IMAGE_DECODE", f"the image does not decode ({type(error).__name__}).") from error


WRITABLE = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "GIF": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
}
"""Modes that a format takes as they are; the formats that are not named take every mode of 8 bits."""


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """Encode an image. What a format cannot hold is converted if no more than transparency or a palette is lost.

    Args:
        image: The pixels.
        kind: ``JPEG``, ``PNG``, ``GIF``, ``BMP``, ``TIFF`` or ``WEBP``.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        RowError: ``IMAGE_ENCODE``, for example for 16 bits in a JPEG: nobody but the user knows how to scale them.
    """
    deep = image.mode.startswith(("I", "F"))
    fits = kind == "TIFF" or image.mode in WRITABLE.get(kind, () if deep else (image.mode,))
    if deep and not fits:
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}.")
    fitting = image if fits else image.convert("RGBA" if kind == "PNG" and image.has_transparency_data else "RGB")
    buffer = io.BytesIO()
    try:
        fitting.save(buffer, kind, quality=quality)
    except (OSError, ValueError) as error:
        size = f"{image.width} x {image.height}"
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}, {size}.") from error
    return buffer.getvalue()
