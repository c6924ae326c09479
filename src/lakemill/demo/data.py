"""The demo's files: handwritten digits, a few broken ones and two photographs; all of it ships with scikit-learn."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lakemill_udfs.errors import missing_extra

GREY_LEVELS = 16  # the digits' pixels are 0 to 16
TEST_SHARE = 1 / 3
BOMB_SIDE_PIXELS = 50_000


@dataclass(frozen=True)
class DemoFiles:
    """What was written.

    Args:
        digits: Folder of the digits: ``train/<label>/<n>.png`` and ``test/<label>/<n>.png``.
        photos: Folder of the photographs.
        train: Digits to learn from.
        test: Digits to score.
        broken: Files that are no usable image, beside the digits.
        damaged: The digit, below ``digits``, to damage once it is in the table: ingest finds its file in order.
    """

    digits: Path
    photos: Path
    train: int
    test: int
    broken: int
    damaged: str


def write_files(folder: Path) -> DemoFiles:
    """Write the demo's files; those that are there already stay untouched, so that they do not count as changed.

    Args:
        folder: Gets the folders ``digits`` and ``photos``.

    Raises:
        ModelError: ``EXTRA_MISSING`` if scikit-learn is not installed.
        OSError: A file cannot be written.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra("sklearn", "sklearn") from error

    digits, photos = folder / "digits", folder / "photos"
    images, labels = load_digits().images, load_digits().target
    train, test = train_test_split(range(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)
    for split, part in (("train", train), ("test", test)):
        for n in part:
            _write(digits / split / str(labels[n]) / f"{n:04}.png", digit_png(images[n]))
    broken = broken_files(digit_png(images[train[0]]))
    for name, content in broken.items():
        _write(digits / name, content)
    photos.mkdir(parents=True, exist_ok=True)
    for source in load_sample_images().filenames:
        target = photos / Path(source).name
        if not target.exists():
            shutil.copy(source, target)
    damaged = f"test/{labels[min(test)]}/{min(test):04}.png"
    return DemoFiles(digits, photos, len(train), len(test), len(broken), damaged)


def digit_png(pixels: NDArray[np.float64]) -> bytes:
    """Return a digit of ``(8, 8)`` grey values from 0 to 16 as a PNG with values from 0 to 255."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(pixels * (255 / GREY_LEVELS)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def broken_files(image: bytes) -> dict[str, bytes]:
    """Return files that look like images by their names and are none, by the path to write them to.

    Args:
        image: A whole PNG, of which one gets the first half.
    """
    return {
        "test/0/empty.png": b"",
        "test/3/truncated.png": image[: len(image) // 2],
        "test/5/notes.png": b"Scanned in March. The fives look like sixes.\n",
        "train/8/bomb.png": bomb_png(BOMB_SIDE_PIXELS),
    }


def bomb_png(side_pixels: int) -> bytes:
    """Return a PNG of a few bytes that says it is a huge square: decoding it would take gigabytes."""
    header = struct.pack(">IIBBBBB", side_pixels, side_pixels, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
