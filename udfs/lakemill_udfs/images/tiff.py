"""The first directory of a TIFF, or of EXIF, which is a small TIFF: read without trust in any of its entries.

What is cleaned off a TIFF before Pillow opens it is every entry that no pixel needs: one damaged date or profile then
spoils nothing, and thousands of entries that all point to the same megabytes take no memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError

ORIENTATION = 0x0112
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
SUBFILE, SUB_DIRECTORIES, DNG_VERSION = 254, 330, 50706
WHITE_IS_ZERO, YCBCR, SEPARATE = 0, 6, 2
PIXELS = {
    *(254, 255, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, OFFSETS, ORIENTATION, SAMPLES, STRIP_ROWS),
    *(
        STRIP_BYTES,
        PLANAR,
        292,
        293,
        317,
        320,
        TILE_WIDTH,
        TILE_HEIGHT,
        TILE_OFFSETS,
        TILE_BYTES,
        332,
        338,
        SAMPLE_FORMAT,
    ),
    *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
"""The entries that say how pixels are stored."""

MOST_ENTRIES, MOST_VALUES = 2**16, 2**24
UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
KINDS_OF_SAMPLE = {1: "uint", 2: "int", 3: "float"}


@dataclass(frozen=True)
class Entry:
    """One entry of the directory.

    Args:
        at: Where it begins.
        kind: The type of its values.
        count: How many.
        values_at: Where they are.
    """

    at: int
    kind: int
    count: int
    values_at: int


class Directory:
    """The first directory of a TIFF.

    Args:
        data: The file.

    Attributes:
        entries: By tag; of entries with the same tag the first.
        all: Every tag and entry as they come.

    Raises:
        ValueError: the file is cut off before the directory's end, or is no TIFF.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        self.big = self._number("H", 2) == 43
        start = self._number("Q", 8) if self.big else self._number("I", 4)
        count = self._number("Q" if self.big else "H", start)
        first, size = (start + 8, 20) if self.big else (start + 2, 12)
        if count > MOST_ENTRIES or first + count * size > len(data):
            raise ValueError("the directory is cut off, or larger than any")
        self.all = [self._entry(first + number * size) for number in range(count)]
        self.entries = dict(reversed(self.all))

    def _number(self, kind: str, at: int) -> int:
        try:
            return int(struct.unpack_from(self.order + kind, self.data, at)[0])
        except struct.error as error:
            raise ValueError("the directory is cut off") from error

    def _entry(self, at: int) -> tuple[int, Entry]:
        word = "Q" if self.big else "I"
        tag, kind, count = self._number("H", at), self._number("H", at + 2), self._number(word, at + 4)
        room, values_at = (8, at + 12) if self.big else (4, at + 8)
        if UNITS.get(kind, 1) * count > room:
            values_at = self._number(word, values_at)
        return tag, Entry(at, kind, count, values_at)

    def numbers(self, tag: int) -> NDArray[np.int64]:
        """Return the integers of an entry; none where it is missing, of another type or cut off."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in INTEGERS:
            return np.empty(0, np.int64)
        dtype = np.dtype(INTEGERS[entry.kind]).newbyteorder(self.order)
        if entry.count > MOST_VALUES or entry.values_at + entry.count * dtype.itemsize > len(self.data):
            return np.empty(0, np.int64)
        return np.frombuffer(self.data, dtype, entry.count, entry.values_at).astype(np.int64)

    def number(self, tag: int, default: int) -> int:
        """Return the first integer of an entry."""
        values = self.numbers(tag)
        return int(values[0]) if len(values) else default

    @property
    def orientation(self) -> int | None:
        """EXIF orientation, 1 to 8; None if there is none or it makes no sense."""
        value = self.number(ORIENTATION, 0)
        return value if 1 <= value <= 8 else None

    @property
    def is_raw(self) -> bool:
        """Whether it is a camera's raw file: its first image is only a preview of one in a directory below."""
        preview = self.number(SUBFILE, 0) & 1 and SUB_DIRECTORIES in self.entries
        return bool(preview) or DNG_VERSION in self.entries or self.data[8:10] == b"CR"

    @property
    def sample(self) -> tuple[str, int]:
        """Kind (``uint``, ``int`` or ``float``) and bits of the first channel's values."""
        return KINDS_OF_SAMPLE.get(self.number(SAMPLE_FORMAT, 1), "uint"), self.number(BITS, 1)

    def cleaned(self) -> bytes:
        """Return the file with the entries emptied that say nothing of pixels, and upright."""
        data = bytearray(self.data)
        word, upright = ("Q", 1) if self.big else ("I", 1)
        for tag, entry in self.all:
            if tag == ORIENTATION:
                struct.pack_into(f"{self.order}H{word}H", data, entry.at + 2, 3, 1, upright)
            elif tag not in PIXELS:
                struct.pack_into(f"{self.order}H{word}{word}", data, entry.at + 2, 1, 0, 0)
        return bytes(data)

    @property
    def needs_cleaning(self) -> bool:
        """Whether ``cleaned`` changes anything."""
        return self.orientation not in (None, 1) or any(tag not in PIXELS or tag == ORIENTATION for tag, _ in self.all)

    @property
    def piece_bytes(self) -> int:
        """Bytes of one strip or tile, unpacked."""
        width = self.number(TILE_WIDTH, self.number(WIDTH, 0))
        height = self.number(TILE_HEIGHT, min(self.number(HEIGHT, 0), self.number(STRIP_ROWS, 2**32 - 1)))
        return self._row_bytes(width) * height

    def _row_bytes(self, width: int) -> int:
        bits = self.numbers(BITS)
        samples = 1 if self.number(PLANAR, 1) == SEPARATE else self.number(SAMPLES, 1)
        return -(-width * samples * int(bits.max(initial=1)) // 8)

    def check(self) -> None:
        """Check that strips or tiles cover the whole image, and that no entry is counted twice.

        Raises:
            RowError: ``IMAGE_HEADER`` or ``IMAGE_TRUNCATED``.
        """
        pixels = sum(UNITS.get(entry.kind, 1) * entry.count for tag, entry in self.all if tag in PIXELS)
        if pixels > len(self.data) + 2**16:
            raise RowError("IMAGE_HEADER", "the TIFF's entries hold more bytes than the file: damaged.")
        for tag in (WIDTH, HEIGHT, OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
            if tag in self.entries and not len(self.numbers(tag)):
                raise RowError("IMAGE_HEADER", f"the TIFF's entry {tag} holds no whole numbers: damaged.")
        width, height = self.number(WIDTH, 0), self.number(HEIGHT, 0)
        planes = self.number(SAMPLES, 1) if self.number(PLANAR, 1) == SEPARATE else 1
        if TILE_OFFSETS in self.entries:
            across, down = max(1, self.number(TILE_WIDTH, 1)), max(1, self.number(TILE_HEIGHT, 1))
            wanted, offsets, rows = -(-width // across) * -(-height // down), self.numbers(TILE_OFFSETS), None
        else:
            rows = max(1, min(height, self.number(STRIP_ROWS, 2**32 - 1)))
            wanted, offsets = -(-height // rows), self.numbers(OFFSETS)
        if not len(offsets):
            raise RowError("IMAGE_HEADER", "the TIFF says not where its pixels are.")
        if len(offsets) < wanted * planes:
            raise RowError(
                "IMAGE_TRUNCATED", f"the TIFF has {len(offsets)} strips or tiles; {wanted * planes} cover its pixels."
            )
        if rows and self.number(COMPRESSION, 1) == 1 and self.number(PHOTOMETRIC, 1) != YCBCR:
            self._check_strips(offsets[: wanted * planes], wanted, rows, height, self._row_bytes(width))

    def _check_strips(self, offsets: NDArray[np.int64], strips: int, rows: int, height: int, row_bytes: int) -> None:
        """Check that each strip of an uncompressed image has the bytes of its rows."""
        needed = np.full(len(offsets), rows * row_bytes)
        needed[strips - 1 :: strips] = (height - rows * (strips - 1)) * row_bytes
        lengths = self.numbers(STRIP_BYTES)
        if len(lengths) != len(offsets) or not lengths.all():  # some writers leave it out: then the file's end counts
            lengths = np.maximum(len(self.data) - offsets, 0)
        lengths = np.minimum(lengths, np.maximum(len(self.data) - offsets, 0))
        if (short := int((lengths < needed).sum())) > 0:
            raise RowError("IMAGE_TRUNCATED", f"{short} of the TIFF's {len(offsets)} strips have too few bytes.")


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, that EXIF says; None where it says none or is damaged.

    Args:
        exif: Its bytes, with or without the word ``Exif`` and two zero bytes before them.
    """
    try:
        return Directory(exif.removeprefix(b"Exif\0\0")).orientation
    except ValueError:
        return None
