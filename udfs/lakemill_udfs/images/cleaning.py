"""An image file without what no pixel needs: text, profiles, EXIF, thumbnails; its orientation is read on the way.

A photograph with a damaged comment is a good photograph, and a comment that unpacks to gigabytes is not unpacked.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.formats import RAW, unknown_format
from lakemill_udfs.images.tiff import Directory, exif_orientation

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000
"""Pieces of one file that are looked at one by one; each costs a microsecond and a hundred bytes."""

MOST_SCANS = 100
"""Of a JPEG, which is decoded as often as it has scans; a progressive photograph has about ten."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
XMP = b"http://ns.adobe.com/xap/1.0/"
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


@dataclass(frozen=True)
class Cleaned:
    """A file that Pillow may open.

    Args:
        data: Its bytes.
        orientation: 1 to 8; None if the file says none.
        scans: How often a JPEG's pixels are gone over.
        tiff: A TIFF's directory.
    """

    data: bytes
    orientation: int | None = None
    scans: int = 1
    tiff: Directory | None = None


def check_pieces(kind: str, seen: int) -> None:
    """Check how many pieces of a file were looked at.

    Raises:
        RowError: ``IMAGE_TOO_COMPLEX``.
    """
    if seen > MOST_CHUNKS:
        raise RowError("IMAGE_TOO_COMPLEX", f"the {kind} has more than {MOST_CHUNKS} pieces.")


def clean(kind: str, data: bytes) -> Cleaned:
    """Return a file without what no pixel needs.

    Raises:
        RowError: ``IMAGE_HEADER``, ``IMAGE_TRUNCATED``, ``IMAGE_TOO_COMPLEX``, or ``IMAGE_UNKNOWN_FORMAT`` for a
            camera's raw file.
        ValueError: the header is damaged.
    """
    if kind == "JPEG":
        return _clean_jpeg(data)
    if kind == "PNG":
        return _clean_png(data)
    if kind == "TIFF":
        return _clean_tiff(data)
    return Cleaned(data)


def _clean_jpeg(data: bytes) -> Cleaned:
    """Leave out comments and application segments, but JFIF's and Adobe's, which say how colours are stored."""
    at, kept, orientation, xmp, seen = 2, [data[:2]], None, None, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, seen = data[at + 1], seen + 1
        check_pieces("JPEG", seen)
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD7:  # a fill byte, or a marker that stands alone
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = orientation or exif_orientation(data[at + 4 : end])
        elif marker == 0xE1 and data.startswith(XMP, at + 4) and (match := XMP_ORIENTATION.search(data, at, end)):
            xmp = int(match[1])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at:end])
        at = end
    scans = data.count(b"\xff\xda", at)
    if scans > MOST_SCANS:  # what follows the end may hold anything: count again, marker by marker
        scans = _count_scans(data, at)
    if scans > MOST_SCANS:
        raise RowError("IMAGE_TOO_COMPLEX", f"the JPEG has {scans} scans; at most {MOST_SCANS} are decoded.")
    return Cleaned(b"".join([*kept, data[at:]]), orientation or xmp, scans)


def _count_scans(data: bytes, at: int) -> int:
    scans = seen = 0
    while (found := MARKER.search(data, at)) and data[found.start() + 1] != 0xD9:
        at, seen = found.start() + 2, seen + 1
        check_pieces("JPEG", seen)
        scans += data[at - 1] == 0xDA
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans


def png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return name, start and end (of the content, without its checksum) of each chunk, the last maybe past the end.

    Raises:
        RowError: ``IMAGE_TOO_COMPLEX``.
    """
    chunks, start = [], len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        chunks.append((name, start + 8, start + 8 + length))
        if name == b"IEND":
            break
        check_pieces("PNG", len(chunks))
        start += 12 + length
    return chunks


def _clean_png(data: bytes) -> Cleaned:
    """Leave out every chunk that a reader may leave out, but transparency."""
    chunks = png_chunks(data)
    needed = [chunk for chunk in chunks if not chunk[0][0] & 0x20 or chunk[0] == b"tRNS"]
    orientation = next((exif_orientation(data[start:end]) for name, start, end in chunks if name == b"eXIf"), None)
    if len(needed) == len(chunks):
        return Cleaned(data, orientation)
    return Cleaned(b"".join([PNG_SIGNATURE, *(data[start - 8 : end + 4] for _, start, end in needed)]), orientation)


def _clean_tiff(data: bytes) -> Cleaned:
    directory = Directory(data)
    if directory.is_raw:
        raise unknown_format(RAW)
    directory.check()
    return Cleaned(directory.cleaned() if directory.needs_cleaning else data, directory.orientation, tiff=directory)
