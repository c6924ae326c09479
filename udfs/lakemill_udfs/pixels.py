"""Encoded image files to upright Pillow images and back, for thumbnails and transforms."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from lakemill_udfs.errors import RowError
from lakemill_udfs.image_files import PLUGINS


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
            return ImageOps.exif_transpose(image)
    except MemoryError:
        raise  # no memory for one image is a broken environment, not a broken row
    except Exception as error:  # Pillow's plugins raise anything on a damaged file; it is this row's fault
        raise RowError("IMAGE_DECODE", f"the image does not decode ({type(error).__name__}).") from error


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """Encode an image; JPEG has no transparency and 8 bits, so its images are converted to grey or RGB first.

    Args:
        image: The pixels.
        kind: ``JPEG``, ``PNG``, ``GIF``, ``BMP``, ``TIFF`` or ``WEBP``.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        RowError: ``IMAGE_ENCODE`` if the format has no such pixels.
    """
    fitting = image.convert("RGB") if kind == "JPEG" and image.mode not in ("L", "RGB", "CMYK") else image
    buffer = io.BytesIO()
    try:
        fitting.save(buffer, kind, quality=quality)
    except (OSError, ValueError) as error:
        size = f"{image.width} x {image.height}"
        raise RowError("IMAGE_ENCODE", f"{kind} cannot hold an image of mode {image.mode}, {size}.") from error
    return buffer.getvalue()
