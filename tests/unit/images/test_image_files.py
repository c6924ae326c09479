"""One image file: what it is, whether it is whole, and what becomes of one that is not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lakemill_udfs.errors import RowError
from lakemill_udfs.images import rows as image_rows
from lakemill_udfs.images.files import Limits, inspect
from lakemill_udfs.images.rows import BATCH_BYTES, LISTING, find_rejected, read_images

LIMITS = Limits()
ORIENTATION = 0x0112


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (37, 29), **options: object) -> bytes:
    """Return noise of a size as an image file."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def sideways() -> Image.Exif:
    """Return EXIF that says: turned by 90 degrees."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return exif


FILES = {
    "jpeg": ("JPEG", "RGB", {}),
    "jpeg, progressive": ("JPEG", "L", {"progressive": True}),
    "jpeg, cmyk": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "png, palette": ("PNG", "P", {}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "bmp, one bit": ("BMP", "1", {}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff, lzw": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", "RGB", {}),
    "webp, lossless": ("WEBP", "RGB", {"lossless": True}),
}
DATA = {name: encoded(kind, mode, **options) for name, (kind, mode, options) in FILES.items()}


def code(data: bytes, limits: Limits = LIMITS) -> str:
    """Return the code with which a file is refused."""
    with pytest.raises(RowError) as caught:
        inspect(data, limits)
    return caught.value.code


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_described(name: str) -> None:
    """Format, size, mode and hash of every format that is read."""
    kind, mode, _ = FILES[name]
    info = inspect(DATA[name], LIMITS)
    assert (info.format, info.width, info.height, info.mode) == (kind, 37, 29, mode)
    assert info.sha256 == hashlib.sha256(DATA[name]).hexdigest()
    assert info.orientation is None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_file_cut_off_anywhere_is_refused(name: str, data: st.DataObject) -> None:
    """No prefix of a file passes, whichever byte it ends at."""
    whole = DATA[name]
    length = data.draw(st.integers(0, len(whole) - 1))
    assert code(whole[:length]) in {"FILE_EMPTY", "IMAGE_UNKNOWN_FORMAT", "IMAGE_HEADER", "IMAGE_TRUNCATED"}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damage_is_a_verdict_and_never_a_crash(name: str, data: st.DataObject) -> None:
    """Bytes changed in the header give a description or a code, and no other error."""
    damaged = bytearray(DATA[name])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6)):
        damaged[at % len(damaged)] = value
    with contextlib.suppress(RowError):
        assert inspect(bytes(damaged), LIMITS).format == FILES[name][0]


@given(data=st.binary(max_size=400))
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    """Random bytes are no image."""
    assert code(data) in {"FILE_EMPTY", "IMAGE_UNKNOWN_FORMAT", "IMAGE_HEADER", "IMAGE_TRUNCATED"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_read_without_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXIF orientation of every format that has it; no pixel is decoded on the way."""
    data = encoded(kind, exif=sideways())

    def decoded(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert inspect(data, LIMITS).orientation == 6


def test_a_thumbnail_does_not_hide_a_cut() -> None:
    """A JPEG's embedded thumbnail has an end marker of its own, which is not the photograph's."""
    thumbnail = encoded("JPEG", size=(16, 16))
    photo = DATA["jpeg"]
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = photo[:2] + segment + photo[2:]
    assert inspect(with_thumbnail, LIMITS).width == 37
    assert code(with_thumbnail[:-20]) == "IMAGE_TRUNCATED"


def test_what_follows_the_end_does_no_harm() -> None:
    """Cameras append their own data behind the image."""
    for name in ("jpeg", "png", "gif", "bmp", "webp"):
        assert inspect(DATA[name] + b"appended by a camera", LIMITS).height == 29


def test_a_bomb_is_refused_by_its_header() -> None:
    """A few bytes that declare 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        bomb += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    assert code(bomb) == "IMAGE_TOO_MANY_PIXELS"
    assert code(DATA["png"], Limits(max_pixels=1000)) == "IMAGE_TOO_MANY_PIXELS"
    assert inspect(DATA["png"], Limits(max_pixels=37 * 29)).width == 37


def listed(*paths: Path, length: int | None = None) -> list[pa.RecordBatch]:
    """Return a listing of files as one batch."""
    rows = [{"path": str(path), "length": length or (path.stat().st_size if path.exists() else 1)} for path in paths]
    return [pa.RecordBatch.from_pylist(rows, schema=LISTING)]


def test_each_file_is_in_one_result_and_a_vanished_one_in_none(tmp_path: Path) -> None:
    """Good files become rows, the others their reason; what is gone is nowhere."""
    good, bad, folder, gone = (tmp_path / name for name in ("good.png", "bad.png", "folder", "gone.png"))
    good.write_bytes(DATA["png"])
    bad.write_bytes(b"text")
    folder.mkdir()
    listing = listed(good, bad, folder, gone)
    rows = pa.Table.from_batches(read_images(listing, LIMITS)).to_pylist()
    assert [(row["path"], row["content"]) for row in rows] == [(str(good), DATA["png"])]
    rejected = pa.Table.from_batches(find_rejected(listing, LIMITS)).to_pylist()
    assert [(row["path"], row["code"]) for row in rejected] == [
        (str(bad), "IMAGE_UNKNOWN_FORMAT"),
        (str(folder), "FILE_UNREADABLE"),
    ]


def test_a_file_over_the_limit_is_not_even_read(tmp_path: Path) -> None:
    """The listing's length is enough to refuse it."""
    absent = tmp_path / "huge.png"
    rejected = pa.Table.from_batches(find_rejected(listed(absent, length=2**40), LIMITS)).to_pylist()
    assert [row["code"] for row in rejected] == ["FILE_TOO_LARGE"]


def test_above_the_reference_limit_only_the_bytes_stay_away(tmp_path: Path) -> None:
    """Everything else of the row is there."""
    file = tmp_path / "large.png"
    file.write_bytes(DATA["png"])
    [row] = pa.Table.from_batches(read_images(listed(file), Limits(reference_above=10))).to_pylist()
    assert row["content"] is None
    assert (row["width"], row["sha256"]) == (37, hashlib.sha256(DATA["png"]).hexdigest())


def test_batches_are_bounded_by_bytes(tmp_path: Path) -> None:
    """Many images do not end up in one batch."""
    data = encoded("BMP", size=(1000, 1000))
    files = [tmp_path / f"{number}.bmp" for number in range(8)]
    for file in files:
        file.write_bytes(data)
    batches = list(read_images(listed(*files), LIMITS))
    assert [batch.num_rows for batch in batches] == [3, 3, 2]
    assert all(batch.nbytes < BATCH_BYTES + len(data) for batch in batches)


def test_urls_are_read_ahead_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a store are fetched by many threads, within a bound, and come out as listed."""
    monkeypatch.setattr(image_rows, "REMOTE_AHEAD_BYTES", 20_000)
    names = []
    for number in range(40):
        file = tmp_path / f"{number:02}.png"
        file.write_bytes(encoded("PNG", size=(10 + number, 10)))
        names.append(f"file://{file}")
    rows = [{"path": name, "length": 1000} for name in names]
    batch = pa.RecordBatch.from_pylist(rows, schema=LISTING)
    found = pa.Table.from_batches(read_images([batch], LIMITS))
    assert found["path"].to_pylist() == names
    assert found["width"].to_pylist() == [10 + number for number in range(40)]
