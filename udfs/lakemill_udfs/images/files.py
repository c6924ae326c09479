"""What one image file is, and whether it is whole, from its bytes and without decoding a pixel.

A file passes if its header can be read and its structure reaches its own end: PNG chunks to ``IEND``, JPEG to the end
marker of its scan, GIF blocks to the trailer, and the sizes that BMP, TIFF and WebP declare. Damage inside the
compressed pixels is left to be found when they are decoded.

Codes of a file that does not pass: ``FILE_EMPTY``, ``FILE_TOO_LARGE``, ``FILE_UNREADABLE``, ``IMAGE_UNKNOWN_FORMAT``,
``IMAGE_HEADER``, ``IMAGE_TRUNCATED`` and ``IMAGE_TOO_MANY_PIXELS``.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lakemill_udfs.errors import RowError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Limits:
    """What a file may be at most, to be stored.

    Args:
        max_bytes: Larger files are rejected as ``FILE_TOO_LARGE``.
        max_pixels: Images of more pixels are rejected as ``IMAGE_TOO_MANY_PIXELS``, by their header alone.
        reference_above: Larger files are kept by their path: their bytes stay where they are.
    """

    max_bytes: int = 512 * 2**20
    max_pixels: int = 178_956_970
    reference_above: int = 100 * 2**20


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says.

    Args:
        format: ``JPEG``, ``PNG``, ``GIF``, ``BMP``, ``TIFF`` or ``WEBP``.
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
    if not data:
        raise RowError("FILE_EMPTY", "the file has no bytes.")
    check_size(len(data), limits)
    kind = _format(data)
    image = _open(kind, data)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width} x {height} pixels", limits)
    needed = END_OF[kind](data, image)
    if needed > len(data):
        raise _truncated(kind, needed, len(data))
    return ImageInfo(kind, width, height, image.mode, _orientation(kind, data, image), hashlib.sha256(data).hexdigest())


def check_size(length: int, limits: Limits) -> None:
    """Refuse a file by its size alone, before it is read.

    Raises:
        RowError: ``FILE_TOO_LARGE``.
    """
    if length > limits.max_bytes:
        raise RowError("FILE_TOO_LARGE", f"the file has {length} bytes; limits.max_bytes is {limits.max_bytes}.")


def _format(data: bytes) -> str:
    for kind, starts in SIGNATURES.items():
        if data.startswith(starts) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            return kind
    raise RowError("IMAGE_UNKNOWN_FORMAT", f"expected {', '.join(SIGNATURES)}; the first bytes fit none of them.")


def _open(kind: str, data: bytes) -> ImageFile.ImageFile:
    # The plugin itself, not Image.open: that has a process-wide pixel limit of its own and warns below it.
    try:
        return PLUGINS[kind](io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise RowError("IMAGE_TOO_MANY_PIXELS", f"a {kind} frame is larger than Pillow allows.") from error
    except (SyntaxError, OSError, ValueError, OverflowError, MemoryError, struct.error) as error:
        raise RowError("IMAGE_HEADER", f"the {kind} header cannot be read: cut off or damaged.") from error


def _truncated(kind: str, needed: int, length: int) -> RowError:
    return RowError("IMAGE_TRUNCATED", f"the {kind} ends too early: expected at least {needed} bytes, got {length}.")


def _too_many_pixels(got: str, limits: Limits) -> RowError:
    return RowError("IMAGE_TOO_MANY_PIXELS", f"the header declares {got}; limits.max_pixels is {limits.max_pixels}.")


def _orientation(kind: str, data: bytes, image: ImageFile.ImageFile) -> int | None:
    exif = Image.Exif()
    try:
        if kind == "PNG":  # its getexif() would decode the pixels to look behind them
            exif.load(next((data[start:end] for name, start, end in _png_chunks(data) if name == b"eXIf"), b""))
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation)
    except (SyntaxError, OSError, ValueError, TypeError, KeyError, struct.error):
        return None  # damaged EXIF says nothing, and the image is still good
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return name, start and end (of the content, without its checksum) of each chunk, the last maybe past the end."""
    chunks, start = [], len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        chunks.append((name, start + 8, start + 8 + length))
        if name == b"IEND":
            break
        start += 12 + length
    return chunks


def _png_end(data: bytes, image: ImageFile.ImageFile) -> int:
    del image
    chunks = _png_chunks(data)
    name, _, end = chunks[-1]
    return end + 4 if name == b"IEND" else max(end + 4, len(data) + 12)


def _jpeg_end(data: bytes, image: ImageFile.ImageFile) -> int:
    """Look for the end marker behind the first scan's header: one before it belongs to an embedded thumbnail."""
    del image
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        start += 2 + length
        if marker == 0xDA:
            break
    end = data.rfind(b"\xff\xd9", start)
    return end + 2 if end >= 0 else max(start, len(data)) + 2


def _gif_end(data: bytes, image: ImageFile.ImageFile) -> int:
    del image
    try:
        return _gif_trailer(data) + 1
    except IndexError:
        return len(data) + 1


def _gif_trailer(data: bytes) -> int:
    at = 13 + _gif_colors(data[10])
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            at += 10 + _gif_colors(data[at + 9]) + 1
        elif data[at] == 0x21:
            at += 2
        else:
            raise RowError("IMAGE_HEADER", "the GIF has a block of unknown kind: damaged.")
        while size := data[at]:
            at += 1 + size
        at += 1
    return at


def _gif_colors(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp_end(data: bytes, image: ImageFile.ImageFile) -> int:
    size, pixels_at, header = (int.from_bytes(data[at : at + 4], "little") for at in (2, 10, 14))
    if header < 40:  # OS/2's header
        return max(size, pixels_at)
    bits = int.from_bytes(data[28:30], "little")
    compression, pixel_bytes = (int.from_bytes(data[at : at + 4], "little") for at in (30, 34))
    if compression in (0, 3):  # not compressed: the size follows from the shape, and some writers leave the fields 0
        pixel_bytes = (image.width * bits + 31) // 32 * 4 * image.height
    return pixels_at + pixel_bytes


def _tiff_end(data: bytes, image: ImageFile.ImageFile) -> int:
    del data
    tags = image.tag_v2  # type: ignore[attr-defined]  # a TiffImageFile
    for offsets, lengths in ((273, 279), (324, 325)):
        if offsets in tags and lengths in tags:
            return int(max(at + length for at, length in zip(_many(tags[offsets]), _many(tags[lengths]), strict=False)))
    raise RowError("IMAGE_HEADER", "the TIFF says not where its pixels are.")


def _many(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _webp_end(data: bytes, image: ImageFile.ImageFile) -> int:
    del image
    return 8 + int.from_bytes(data[4:8], "little")


SIGNATURES: dict[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": PNG_SIGNATURE,
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": b"BM",
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "WEBP": b"RIFF",
}
PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
END_OF: dict[str, Callable[[bytes, ImageFile.ImageFile], int]] = {
    "JPEG": _jpeg_end,
    "PNG": _png_end,
    "GIF": _gif_end,
    "BMP": _bmp_end,
    "TIFF": _tiff_end,
    "WEBP": _webp_end,
}
