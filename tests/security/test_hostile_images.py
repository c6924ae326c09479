"""A file in an ingest folder or an images table is a stranger's: what it can make a job do is an error of its own."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.cleaning import MOST_SCANS
from lakemill_udfs.images.files import Limits, inspect
from lakemill_udfs.images.opening import DecodeLimits, open_image
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.images.thumbnails import small_image
from lakemill_udfs.images.transforms import ImageSource, ImageTransform, transform_bytes
from lakemill_udfs.steps.declared import ImageStep
from tests.fuzz.image_mutants import mutants, seeds, ways

STEP = ImageStep(size=(8, 8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def code(data: bytes, step: ImageStep = STEP) -> str | None:
    """Return the code of the row's error."""
    _, [failure] = ImageDecoder(step).run([data], [None])
    return failure and failure[1].code


@pytest.mark.parametrize("way", ["infer", "ingest", "transform", "thumbnails", "report"])
def test_a_damaged_file_is_one_rows_error_in_every_way(tmp_path: Path, way: str) -> None:
    """No mutant raises anything, and each has its result or its reason."""
    files = [*seeds(), *mutants(250, seed=11)]
    assert ways(tmp_path)[way](files) == len(files)


def test_an_offset_of_a_wrong_type_is_a_quarantine_row() -> None:
    """A TIFF whose strip lengths are a text stopped the whole ingest at every run."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "TIFF"))
    for kind in (3, 4):
        at = data.find(struct.pack("<HH", 279, kind))
        if at >= 0:
            data[at + 2 : at + 4] = struct.pack("<H", 2)
    with pytest.raises(RowError, match=r"\[IMAGE_HEADER\].*279"):
        inspect(bytes(data), Limits())
    assert code(bytes(data)) == "IMAGE_HEADER"


def test_premultiplied_alpha_is_a_valid_image_in_every_way() -> None:
    """A TIFF of mode La stopped transform and thumbnails, and ended the report with a traceback."""
    data = bytearray(encoded(Image.new("LA", (8, 8), (100, 200)), "TIFF"))
    at = data.find(struct.pack("<HHI", 338, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", 1)  # associated alpha
    assert open_image(bytes(data), DecodeLimits()).image.mode == "La"
    assert code(bytes(data)) is None
    assert small_image(bytes(data), 4).mode == "RGBA"
    assert transform_bytes("a", bytes(data), ImageTransform(size=(4, 4), format="PNG"), ImageSource())["mode"] == "RGBA"


def test_what_a_file_unpacks_to_is_limited_before_it_is_decoded() -> None:
    """A few kilobytes that become gigabytes; the limit is the job's to set."""
    bomb = encoded(Image.new("1", (16_000, 11_000)), "TIFF", compression="group4")
    assert len(bomb) < 30_000
    assert code(bomb, ImageStep(size=(8, 8), max_decoded_bytes=2**28)) == "IMAGE_TOO_LARGE"
    with pytest.raises(RowError, match=r"limits.max_decoded_bytes is 1048576"):
        inspect(encoded(Image.new("RGB", (600, 600)), "PNG"), Limits(max_decoded_bytes=2**20))


def many_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = encoded(Image.effect_noise((64, 64), 40), "JPEG", progressive=True)
    start = data.rfind(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def test_a_jpeg_is_not_decoded_a_thousand_times() -> None:
    """Its count of scans is bounded; what follows its end is not counted."""
    assert code(many_scans(1000)) == "IMAGE_TOO_COMPLEX"
    assert code(many_scans(2)) is None
    photo_with_film = many_scans(1) + b"\xff\xda" * (MOST_SCANS + 1)
    assert code(photo_with_film) is None


def test_decoding_ends_after_its_time() -> None:
    assert code(encoded(Image.effect_noise((900, 900), 90), "PNG"), ImageStep(size=(8, 8), max_seconds=0)) in (
        "IMAGE_TOO_SLOW",
        "IMAGE_HEADER",
    )


def test_a_png_of_gigabytes_is_refused_in_little_memory() -> None:
    """The header alone decides; measured in a process of its own."""
    row = b"\0" + bytes(3 * 13_000)
    deflate = zlib.compressobj(9)
    pixels = b"".join(deflate.compress(row) for _ in range(13_000)) + deflate.flush()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    script = (
        "import pathlib, sys; data = sys.stdin.buffer.read()\n"
        "from lakemill_udfs.images.step import ImageDecoder; from lakemill_udfs.steps.declared import ImageStep\n"
        "print(ImageDecoder(ImageStep(size=(8, 8))).run([data], [None])[1][0][1].code)\n"
        "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=bomb, capture_output=True, check=True)
    verdict, peak = done.stdout.split()
    assert verdict == b"IMAGE_TOO_LARGE"
    assert int(peak) < 400 * 1024  # KiB


def test_tags_that_share_their_megabytes_take_no_memory() -> None:
    """Thousands of entries that point to the same bytes: none is read, as no pixel needs them."""
    plain = encoded(Image.new("L", (8, 8), 77), "TIFF")
    start = struct.unpack_from("<I", plain, 4)[0]
    count = struct.unpack_from("<H", plain, start)[0]
    entries = plain[start + 2 : start + 2 + 12 * count]
    payload = len(plain)
    extra = b"".join(struct.pack("<HHII", 51_000 + number, 1, 2**20, payload) for number in range(14_000))
    data = plain + bytes(2**20)
    directory = struct.pack("<H", count + 14_000) + entries + extra + bytes(4)
    hostile = data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch, [failure] = ImageDecoder(ImageStep(mode="L", size=(8, 8), dtype="uint8")).run([hostile], [None])
    assert failure is None
    assert batch.ravel()[0] == 77
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB; they would be 14 GB


def test_a_tiff_whose_strips_do_not_cover_it_is_an_error() -> None:
    """It was scored, mostly black, without a word."""
    data = bytearray(encoded(Image.fromarray(np.full((16, 16), 200, np.uint8)), "TIFF"))
    for kind, form in ((3, "<H"), (4, "<I")):
        at = data.find(struct.pack("<HHI", 257, kind, 1))
        if at >= 0:
            data[at + 8 : at + 8 + struct.calcsize(form)] = struct.pack(form, 1600)
    with pytest.raises(RowError, match=r"\[IMAGE_TRUNCATED\]"):
        inspect(bytes(data), Limits())
    assert code(bytes(data)) == "IMAGE_TRUNCATED"


def test_warnings_are_counted_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither Python's nor libtiff's own."""
    decoder = ImageDecoder(STEP)
    files = [data for data in mutants(600, seed=5) if data[:2] in (b"II", b"MM")]
    decoder.run(files, [None] * len(files))
    shown = capfd.readouterr()
    assert shown.err == shown.out == ""
    assert decoder.warnings > 0
