"""Whether an image file is whole: does its structure reach its own end?

PNG chunks to ``IEND``, JPEG to the end marker of its scan, GIF blocks to the trailer, and the sizes that BMP, WebP and
ISO media declare. Damage inside the compressed pixels is left to be found when they are decoded; strips and tiles of a
TIFF are looked at before it is opened.
"""

from __future__ import annotations

from collections.abc import Callable

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.cleaning import check_pieces, png_chunks
from lakemill_udfs.images.tiff import OFFSETS, STRIP_BYTES, TILE_BYTES, TILE_OFFSETS, Directory

BLOCKS_A_PIECE = 100  # a GIF's are of 255 bytes at most


def needed_bytes(kind: str, data: bytes) -> int:
    """Return how many bytes a file must have at least; 0 where its format does not say.

    Args:
        kind: A key of ``PLUGINS``, or ``HEIC``.
        data: The file.

    Raises:
        RowError: ``IMAGE_HEADER`` or ``IMAGE_TOO_COMPLEX``.
    """
    find = END_OF.get(kind)
    return find(data) if find else 0


def is_whole(kind: str, data: bytes) -> bool:
    """Return whether a file reaches its end; one whose structure is damaged is not asked."""
    try:
        return needed_bytes(kind, data) <= len(data)
    except (RowError, ValueError, IndexError):
        return True


def _png_end(data: bytes) -> int:
    chunks = png_chunks(data)
    name, _, end = chunks[-1] if chunks else (b"", 0, len(data))
    return end + 4 if name == b"IEND" else max(end + 4, len(data) + 12)


def _jpeg_end(data: bytes) -> int:
    """Look for the end marker behind the first scan's header: one before it belongs to an embedded thumbnail."""
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


def _gif_end(data: bytes) -> int:
    try:
        return _gif_trailer(data) + 1
    except IndexError:
        return len(data) + 1


def _gif_trailer(data: bytes) -> int:
    at, seen = 13 + _gif_colors(data[10]), 0
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            at += 10 + _gif_colors(data[at + 9]) + 1
        elif data[at] == 0x21:
            at += 2
        else:
            raise RowError("IMAGE_HEADER", "the GIF has a block of unknown kind: damaged.")
        while size := data[at]:
            at, seen = at + 1 + size, seen + 1
            check_pieces("GIF", seen // BLOCKS_A_PIECE)
        at += 1
    return at


def _gif_colors(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp_end(data: bytes) -> int:
    size, pixels_at, header = (int.from_bytes(data[at : at + 4], "little") for at in (2, 10, 14))
    if header < 40:  # OS/2's header
        return max(size, pixels_at)
    bits = int.from_bytes(data[28:30], "little")
    compression, pixel_bytes = (int.from_bytes(data[at : at + 4], "little") for at in (30, 34))
    if compression in (0, 3):  # not compressed: the size follows from the shape, and some writers leave the fields 0
        width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        pixel_bytes = (abs(width) * bits + 31) // 32 * 4 * abs(height)  # negative heights run from the top
    return pixels_at + pixel_bytes


def _tiff_end(data: bytes) -> int:
    directory = Directory(data)
    ends = [
        int((offsets + lengths).max())
        for offsets, lengths in (
            (directory.numbers(OFFSETS), directory.numbers(STRIP_BYTES)),
            (directory.numbers(TILE_OFFSETS), directory.numbers(TILE_BYTES)),
        )
        if len(offsets) and len(offsets) == len(lengths)
    ]
    return max(ends, default=0)


def _webp_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[4:8], "little")


def _media_end(data: bytes) -> int:
    """Go from box to box: a size of 0 means up to the file's end, of 1 that a longer number follows."""
    at = seen = 0
    while at + 8 <= len(data):
        seen += 1
        check_pieces("media file", seen)
        size, header = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size == 0:
            return len(data)
        if size < header:
            raise RowError("IMAGE_HEADER", "a box is smaller than its own header: damaged.")
        at += size
    return at if at >= len(data) else len(data) + 8


def _jpeg2000_end(data: bytes) -> int:
    """Look for the end of the codestream, which is the last thing in the file."""
    end = data.rfind(b"\xff\xd9")
    return end + 2 if end >= 0 else len(data) + 2


def _tga_end(data: bytes) -> int:
    colours = int.from_bytes(data[5:7], "little") * -(-data[7] // 8)
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    raw = width * height * -(-data[16] // 8) if data[2] < 8 else 1
    return 18 + data[0] + colours + raw


def _icon_end(data: bytes) -> int:
    count = int.from_bytes(data[4:6], "little")
    entries = (6 + 16 * number for number in range(count))
    sizes = (
        (int.from_bytes(data[at + 8 : at + 12], "little"), int.from_bytes(data[at + 12 : at + 16], "little"))
        for at in entries
    )
    return max((size + start for size, start in sizes), default=6)


END_OF: dict[str, Callable[[bytes], int]] = {
    "JPEG": _jpeg_end,
    "PNG": _png_end,
    "GIF": _gif_end,
    "BMP": _bmp_end,
    "TIFF": _tiff_end,
    "WEBP": _webp_end,
    "AVIF": _media_end,
    "HEIC": _media_end,
    "JPEG2000": _jpeg2000_end,
    "TGA": _tga_end,
    "ICO": _icon_end,
}
