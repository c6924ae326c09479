"""Mutated image files, and all the ways that open images: each ends with a result or with an error of that one file."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lakemill.report.page import thumbnail_uri
from lakemill_udfs.files import NO_FILES
from lakemill_udfs.images.files import Limits
from lakemill_udfs.images.opening import DecodeLimits
from lakemill_udfs.images.rows import LISTING, find_rejected, read_images
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.images.thumbnails import make_thumbnails
from lakemill_udfs.images.transforms import ImageSource, ImageTransform, find_failed, transform_rows
from lakemill_udfs.steps.declared import ImageStep

SIZE = (50, 40)
LIMITS = DecodeLimits(max_pixels=10_000_000, max_decoded_bytes=2**28, max_seconds=5)
KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True}),
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("GIF", "P", {}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
    *(("TIFF", mode, {"compression": how}) for mode in ("L", "RGB") for how in ("tiff_lzw", "tiff_adobe_deflate")),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("TGA", "RGBA", {}),
    ("TGA", "RGB", {"compression": "tga_rle"}),
    ("ICO", "RGBA", {}),
)


def seeds() -> list[bytes]:
    """Return a good file of every kind, with EXIF where the format has it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    files = []
    for kind, mode, options in KINDS:
        image = _image(noise, mode)
        buffer = io.BytesIO()
        with_exif = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}
        image.save(buffer, kind, **options, **with_exif)
        files.append(buffer.getvalue())
    return files


def _image(noise: np.ndarray[Any, np.dtype[np.uint8]], mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.frombytes("LAB", SIZE, noise[:, :, :3].tobytes())
    if mode == "I;16":
        return Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    return Image.fromarray(noise, "RGBA").convert("RGB" if mode in ("1", "CMYK") else mode).convert(mode)


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged files: bytes changed (most in the header), cut out, doubled, cut off; and numbers made extreme."""
    chance, files = random.Random(seed), seeds()  # noqa: S311 -- the same files in every run
    for _ in range(count):
        data = bytearray(chance.choice(files))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            at = int(len(data) * chance.random() ** chance.choice((1, 4)))
            what = chance.randrange(6)
            if what < 3:
                data[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 7, 12, 127, 128, 255, chance.randrange(256)))])
            elif what == 3:
                number = chance.choice((0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, chance.randrange(2**20)))
                data[at : at + 4] = struct.pack(chance.choice("<>") + "I", number)
            elif what == 4:
                del data[at : at + chance.randrange(1, 40)]
            else:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
        yield bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.05 else data)


def ways(folder: Any) -> dict[str, Callable[[list[bytes]], int]]:
    """Return all that opens images, each as a function from files to how many of them came out well or with a reason.

    Args:
        folder: An empty folder for the files that ingest reads.
    """
    small, limits = {"size": (8, 8)}, Limits(LIMITS.max_pixels, LIMITS.max_decoded_bytes, LIMITS.max_seconds)
    bounds = {"max_pixels": LIMITS.max_pixels, "max_decoded_bytes": LIMITS.max_decoded_bytes, "max_seconds": 5}

    def infer(files: list[bytes]) -> int:
        grey = ImageStep(mode="L", resize_shorter=9, crop=(8, 8), orient=False, value_range=(0, 1000), **bounds)
        steps = [ImageStep(**small, **bounds), grey]
        return min(len(ImageDecoder(step).run(files, [None] * len(files))[1]) for step in steps)

    def ingest(files: list[bytes]) -> int:
        paths = [folder / str(number) for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        listed = [{"path": str(path), "length": len(data)} for path, data in zip(paths, files, strict=True)]
        batch = pa.RecordBatch.from_pylist(listed, schema=LISTING)
        good = sum(part.num_rows for part in read_images([batch], limits))
        return good + sum(part.num_rows for part in find_rejected([batch], limits))

    def transform(files: list[bytes]) -> int:
        source, rows = ImageSource(NO_FILES, LIMITS), _batch(files)
        for transform in (
            ImageTransform(),
            ImageTransform(resize_shorter=9, crop=(8, 8), grayscale=True, format="PNG"),
        ):
            good = sum(part.num_rows for part in transform_rows([rows], transform, source))
            codes = [row["code"] for part in find_failed([rows], transform, source) for row in part.to_pylist()]
            done = good + sum(code != "FUNCTION_UNSTEADY" for code in codes)
            if done != len(files):
                return done
        return len(files)

    def thumbnails(files: list[bytes]) -> int:
        return sum(part.num_rows for part in make_thumbnails([_batch(files)], 16, NO_FILES, LIMITS))

    def report(files: list[bytes]) -> int:
        return len([thumbnail_uri(data) for data in files])

    return {"infer": infer, "ingest": ingest, "transform": transform, "thumbnails": thumbnails, "report": report}


def _batch(files: list[bytes]) -> pa.RecordBatch:
    rows = [{"path": str(number), "sha256": "", "content": data} for number, data in enumerate(files)]
    schema = pa.schema([("path", pa.string()), ("sha256", pa.string()), ("content", pa.binary())])
    return pa.RecordBatch.from_pylist(rows, schema=schema)
