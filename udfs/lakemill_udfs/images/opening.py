"""One image file to its pixels, for all that opens images: ingest's check, predict, transform, thumbnails, report.

A file is a stranger's: whatever its bytes make a library raise is that file's ``RowError``, and what it costs in memory
and time is bounded before it is decoded (``DecodeLimits``).
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageFile

from lakemill_udfs.errors import LakemillError, RowError
from lakemill_udfs.images.cleaning import Cleaned, clean
from lakemill_udfs.images.endings import is_whole
from lakemill_udfs.images.formats import PLUGINS, heic_plugin, identify
from lakemill_udfs.images.library_warnings import counted_warnings
from lakemill_udfs.images.tiff import PHOTOMETRIC, WHITE_IS_ZERO, exif_orientation

STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
"""What Pillow keeps for one pixel of a mode; four for the others."""

CONVERTED_BYTES = 4  # a copy in another mode
WORKING_BYTES = {"WEBP": 12, "AVIF": 6, "HEIC": 6, "JPEG2000": 16}
"""What a format's library keeps for one pixel besides."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of an EXIF orientation upright."""

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True)
class DecodeLimits:
    """What one image may cost.

    Args:
        max_pixels: Of the image, by its header.
        max_decoded_bytes: Of memory while it is decoded, estimated from its header: pixels, a converted copy, and what
            the format's library keeps.
        max_seconds: Of decoding. Looked at whenever the library asks for more of the file; libraries that take the
            whole file at once are bounded by their memory.
    """

    max_pixels: int = 178_956_970
    max_decoded_bytes: int = 2**30
    max_seconds: float = 60.0


DEFAULT_LIMITS = DecodeLimits()


class TimedFile(io.BytesIO):
    """An image file that ends with an error once its time is over."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as ``BytesIO`` does.

        Raises:
            RowError: ``IMAGE_TOO_SLOW``.
        """
        if time.monotonic() > self._end:
            raise RowError(
                "IMAGE_TOO_SLOW", f"the image is not decoded after {self._seconds:g} s (limits.max_seconds)."
            )
        return super().read(size)


@dataclass(frozen=True)
class Opened:
    """An image whose header is read and whose pixels are not.

    Args:
        image: Pillow's image, as stored: never turned.
        kind: A key of ``PLUGINS``, or ``HEIC``.
        size: Width and height, as stored.
        orientation: EXIF orientation, 1 to 8; None if the file says none.
        cleaned: The file that Pillow reads.
        limits: What it may cost.
    """

    image: ImageFile.ImageFile
    kind: str
    size: tuple[int, int]
    orientation: int | None
    cleaned: Cleaned
    limits: DecodeLimits

    @property
    def sample(self) -> tuple[str, int]:
        """Kind (``uint``, ``int`` or ``float``) and bits of one value of a channel, for more than 8 bits."""
        if self.cleaned.tiff is not None:
            return self.cleaned.tiff.sample
        return ("float", 32) if self.image.mode == "F" else ("uint", 16)

    @property
    def white_is_zero(self) -> bool:
        """Whether the values of more than 8 bits are inverted; Pillow turns those of 8 bits over itself."""
        return self.cleaned.tiff is not None and self.cleaned.tiff.number(PHOTOMETRIC, 1) == WHITE_IS_ZERO

    def decoded_bytes(self, pixels: int) -> int:
        """Return about how much memory decoding takes.

        Args:
            pixels: That are kept; fewer than there are where a JPEG is decoded at a fraction of its size.
        """
        mode, all_pixels = self.image.mode, self.size[0] * self.size[1]
        kept = pixels * (STORED_BYTES.get(mode, 4) + CONVERTED_BYTES)
        working = all_pixels * WORKING_BYTES.get(self.kind, 0)
        if self.kind == "JPEG" and (self.cleaned.scans > 1 or self.image.info.get("progressive")):
            working = all_pixels * 2 * len(self.image.getbands())  # coefficients wait for the last scan
        piece = self.cleaned.tiff.piece_bytes if self.cleaned.tiff is not None else 0
        return kept + working + piece

    def check_bytes(self, pixels: int) -> None:
        """Check what decoding takes.

        Raises:
            RowError: ``IMAGE_TOO_LARGE``.
        """
        if (needed := self.decoded_bytes(pixels)) > self.limits.max_decoded_bytes:
            raise RowError(
                "IMAGE_TOO_LARGE",
                f"decoding {self.size[0]} x {self.size[1]} pixels ({self.image.mode}) takes about {needed} bytes; "
                f"limits.max_decoded_bytes is {self.limits.max_decoded_bytes}.",
            )

    def load(self) -> None:
        """Decode the pixels.

        Raises:
            RowError: one of ``row_errors``, or ``IMAGE_TRUNCATED`` where the file is not whole.
        """
        pixels = self.image.width * self.image.height
        self.check_bytes(pixels)
        size = self.image.size
        try:
            with row_errors(self.decoded_bytes(pixels)), counted_warnings():
                self.image.load()
        except RowError as error:
            if error.code == "IMAGE_DECODE" and not is_whole(self.kind, self.cleaned.data):
                raise RowError("IMAGE_TRUNCATED", f"the {self.kind} ends too early.") from error
            raise
        if self.image.size != size:
            raise RowError("IMAGE_HEADER", f"the {self.kind} holds another size than its header says: damaged.")


def open_image(data: bytes, limits: DecodeLimits) -> Opened:
    """Read an image's header; no pixel is decoded.

    Raises:
        RowError: ``FILE_EMPTY``, ``IMAGE_UNKNOWN_FORMAT``, ``IMAGE_EXTRA_MISSING``, ``IMAGE_HEADER``,
            ``IMAGE_TRUNCATED``, ``IMAGE_TOO_MANY_PIXELS`` or ``IMAGE_TOO_COMPLEX``.
    """
    kind = identify(data)
    plugin = PLUGINS.get(kind) or heic_plugin()
    try:
        with counted_warnings():
            check_pixels(_largest_size(kind, data), limits)
            cleaned = clean(kind, data)
            image = plugin(TimedFile(cleaned.data, limits.max_seconds))
    except LakemillError:
        raise
    except Image.DecompressionBombError as error:
        raise RowError("IMAGE_TOO_MANY_PIXELS", f"a {kind} frame is larger than Pillow allows.") from error
    except Exception as error:  # Pillow's plugins raise anything on a damaged header; it is this file's fault
        if not is_whole(kind, data):
            raise RowError("IMAGE_TRUNCATED", f"the {kind} ends too early.") from error
        raise RowError("IMAGE_HEADER", f"the {kind} header cannot be read: damaged.") from error
    check_pixels(image.size, limits)
    orientation = cleaned.orientation
    if kind in ("WEBP", "AVIF"):  # Pillow gives AVIF's own rotation as EXIF, too; HEIC's is applied
        orientation = exif_orientation(bytes(image.info.get("exif") or b""))
    return Opened(image, kind, image.size, orientation, cleaned, limits)


def check_pixels(size: tuple[int, int], limits: DecodeLimits) -> None:
    """Check an image's size.

    Raises:
        RowError: ``IMAGE_TOO_MANY_PIXELS``.
    """
    if size[0] * size[1] > limits.max_pixels:
        raise RowError(
            "IMAGE_TOO_MANY_PIXELS",
            f"the image has {size[0]}x{size[1]} pixels; at most {limits.max_pixels} are allowed.",
        )


def _largest_size(kind: str, data: bytes) -> tuple[int, int]:
    """Return the size that a header declares, where its plugin takes memory for it at once; else nothing."""
    if kind == "WEBP" and data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == "ICO":
        end = min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data) - 15)
        return max(
            (_icon_size(data, at) for at in range(6, end, 16)), key=lambda size: size[0] * size[1], default=(0, 0)
        )
    return 0, 0


def _icon_size(data: bytes, at: int) -> tuple[int, int]:
    """Return the size of the picture that an entry of an icon points to, whatever the entry says of it."""
    start = int.from_bytes(data[at + 12 : at + 16], "little")
    if data.startswith(b"\x89PNG", start):
        return int.from_bytes(data[start + 16 : start + 20], "big"), int.from_bytes(
            data[start + 20 : start + 24], "big"
        )
    width, height = (int.from_bytes(data[start + n : start + n + 4], "little", signed=True) for n in (4, 8))
    return abs(width), abs(height) // 2  # the second half is the mask


@contextmanager
def row_errors(needed_bytes: int = 0) -> Iterator[None]:
    """Turn what Pillow raises over one image into that image's error.

    Args:
        needed_bytes: Of memory that the image may take.

    Raises:
        RowError: ``IMAGE_DECODE``, ``IMAGE_TOO_MANY_PIXELS``, or as it was raised.
        MemoryError: this machine has not even the memory that the image may take: a broken environment.
    """
    try:
        yield
    except LakemillError:
        raise
    except MemoryError as error:
        bytearray(needed_bytes)  # raises MemoryError where memory is short; a damaged file asks for what nobody has
        raise RowError("IMAGE_DECODE", "the image asks for more memory than it may: damaged.") from error
    except Image.DecompressionBombError as error:
        raise RowError("IMAGE_TOO_MANY_PIXELS", "the image has more pixels than Pillow opens.") from error
    except Exception as error:  # Pillow's plugins raise anything on a damaged file; it is this row's fault
        raise RowError("IMAGE_DECODE", f"the image does not decode ({type(error).__name__}).") from error


def upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Return an image turned as its EXIF orientation says."""
    method = UPRIGHT.get(orientation or 1)
    return image if method is None else image.transpose(method)


def as_bytes(content: Any) -> bytes:
    """Return a file's content as bytes, whatever buffer a column holds it in."""
    return content if isinstance(content, bytes) else bytes(content)
