"""Image files to tensors: what plain Pillow gives, and a reason for each file that gives none."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lakemill_udfs.errors import ConfigError, RowError, RunError
from lakemill_udfs.files import RowFiles
from lakemill_udfs.images.formats import PLUGINS
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.steps.declared import ImageStep

ANYWHERE = RowFiles(("/",))
PHOTO = Image.fromarray(
    (np.add.outer(np.arange(90) * 1.7, np.arange(120))[:, :, np.newaxis] * [1, 0.5, 0.8]).astype("uint8")
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(step: ImageStep, *contents: bytes | None, paths: tuple[str | None, ...] = ()) -> Any:
    return ImageDecoder(step, ANYWHERE).run(contents, paths or (None,) * len(contents))


def reason(step: ImageStep, content: bytes | None, path: str | None = None) -> tuple[str, str]:
    batch, failures = decode(step, content, paths=(path,))
    assert len(batch) == 0
    stage, error = failures[0]
    return stage, error.code


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "flat"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_every_mode_layout_and_dtype_is_plain_pillow(mode: Any, layout: Any, dtype: Any) -> None:
    step = ImageStep(mode=mode, layout=layout, dtype=dtype, size=(90, 120))
    batch, failures = decode(step, encoded(PHOTO))
    assert failures == [None]
    assert batch.dtype == dtype
    assert batch.shape[1:] == step.spec.shape
    pixels = np.asarray(PHOTO.convert(mode)).reshape(90, 120, len(mode))
    pixels = pixels.transpose(2, 0, 1) if layout == "NCHW" else pixels
    expected = pixels if dtype == "uint8" else pixels / 255
    np.testing.assert_allclose(batch[0], expected.reshape(step.spec.shape), atol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("photo", [PHOTO, PHOTO.rotate(90, expand=True)], ids=["wide", "high"])
def test_the_crop_inside_the_resize_is_a_crop_after_it(resample: Any, photo: Image.Image) -> None:
    step = ImageStep(resize_shorter=45, crop=(32, 40), resample=resample, dtype="uint8", layout="NHWC")
    batch, _ = decode(step, encoded(photo))
    whole = (60, 45) if photo.width > photo.height else (45, 60)
    resized = photo.resize(whole, Image.Resampling[resample.upper()])
    left, top = round((whole[0] - 40) / 2), round((whole[1] - 32) / 2)
    expected = np.asarray(resized.crop((left, top, left + 40, top + 32)))
    assert np.abs(batch[0].astype(int) - expected).max() <= 1


def test_mean_and_std_are_of_values_from_0_to_1() -> None:
    step = ImageStep(size=(90, 120), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    batch, _ = decode(step, encoded(PHOTO))
    expected = (np.asarray(PHOTO) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_format_is_read(kind: str) -> None:
    data = encoded(PHOTO, kind, **({"sizes": [(120, 90)]} if kind == "ICO" else {}))
    batch, failures = decode(ImageStep(size=(90, 120), dtype="uint8", layout="NHWC", mode="L"), data)
    assert failures == [None]
    assert np.abs(batch[0][:, :, 0].astype(int) - np.asarray(PHOTO.convert("L"))).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_are_turned_as_their_exif_orientation_says(kind: str, mode: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode)
    batch, failures = decode(ImageStep(mode=mode, size=(120, 90), dtype="uint8", layout="NHWC"), data)
    assert failures == [None]
    difference = np.abs(batch[0].reshape(np.asarray(upright).shape).astype(int) - np.asarray(upright))
    assert difference.mean() < (1 if kind == "JPEG" else 0.01)  # a JPEG's grey is decoded without its colours


def test_a_large_jpeg_is_decoded_small_without_losing_sharpness() -> None:
    large = PHOTO.resize((2400, 1800))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(large, "JPEG", quality=95, exif=exif)
    batch, _ = decode(ImageStep(resize_shorter=90, crop=(100, 90), dtype="uint8", layout="NHWC"), data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(upright.resize((90, 120), Image.Resampling.BILINEAR).crop((0, 10, 90, 110)))
    assert np.abs(batch[0].astype(int) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype="uint16")
    batch, _ = decode(ImageStep(mode="L", size=(1, 4), dtype="uint8"), encoded(Image.fromarray(values), kind))
    assert batch.reshape(-1).tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("transparency", [0, b"\0\xff\x80"], ids=["one colour", "a value each"])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_palette_and_transparency(transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype="uint8"), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = encoded(image, transparency=transparency)
    batch, _ = decode(ImageStep(mode="RGB", size=(1, 3), dtype="uint8", layout="NHWC"), data)
    third = [0, 0, 255] if transparency == 0 else [127, 127, 255]
    assert batch[0, 0].tolist() == [[255, 255, 255], [0, 255, 0], third]
    step = ImageStep(mode="RGB", size=(1, 3), dtype="uint8", layout="NHWC", background=None)
    assert decode(step, data)[0][0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    batch, _ = decode(ImageStep(mode="RGBA", size=(1, 3), dtype="uint8", layout="NHWC"), data)
    assert batch[0, 0, :, 3].tolist() == ([0, 255, 255] if transparency == 0 else [0, 255, 128])


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG whose header promises many pixels."""
    data = encoded(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


SMALL = ImageStep(size=(8, 8))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (encoded(PHOTO)[:200], "IMAGE_TRUNCATED"),
        (encoded(PHOTO, "JPEG")[:-200], "IMAGE_TRUNCATED"),
        (b"", "FILE_EMPTY"),
        (b"no image but text", "IMAGE_UNKNOWN_FORMAT"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "IMAGE_UNKNOWN_FORMAT"),
        (bomb(20_000, 10_000), "IMAGE_TOO_MANY_PIXELS"),
        (bomb(40_000, 40_000), "IMAGE_TOO_MANY_PIXELS"),
        (None, "IMAGE_MISSING"),
    ],
    ids=["truncated png", "truncated jpeg", "empty", "text", "eps", "bomb", "larger bomb", "null"],
)
def test_a_bad_file_is_an_error_of_its_row(content: bytes | None, code: str) -> None:
    good = encoded(PHOTO)
    batch, failures = decode(SMALL, good, content, good)
    assert len(batch) == 2
    assert [failure and failure[1].code for failure in failures] == [None, code, None]
    np.testing.assert_array_equal(batch[0], batch[1])
    assert reason(SMALL, content) == ("read" if content is None else "decode", code)


def test_an_image_smaller_than_its_crop_is_an_error_of_its_row() -> None:
    assert reason(ImageStep(crop=(200, 200)), encoded(PHOTO)) == ("decode", "IMAGE_TOO_SMALL")


def test_without_content_the_file_is_read_from_its_path(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(PHOTO))
    for path in (str(file), file.as_uri(), f"file:{file}"):
        batch, failures = decode(SMALL, None, paths=(path,))
        assert failures == [None]
        np.testing.assert_array_equal(batch, decode(SMALL, encoded(PHOTO))[0])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing.png", "FILE_NOT_FOUND"),
        ("file/below", "FILE_NOT_FOUND"),
        ("folder", "FILE_PATH"),
        ("ftp", "PATH_NOT_ALLOWED"),
    ],
)
def test_a_path_that_is_no_file_is_an_error_of_its_row(tmp_path: Path, path: str, code: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    where = "ftp://host/file" if path == "ftp" else str(tmp_path / path)
    assert reason(SMALL, None, where) == ("read", code)


class DeadStore(RowFiles):
    """A storage that is out of order: every read fails, and so does the question what is there."""

    def read(self, path: str) -> bytes:
        raise RowError("FILE_UNREADABLE", "no route to host") from OSError(113, "no route to host")

    @staticmethod
    def answers(path: str) -> bool:
        return path == "one archived file"


def test_storage_that_does_not_answer_fails_the_task_and_one_file_does_not() -> None:
    decoder = ImageDecoder(SMALL, DeadStore())
    good = encoded(PHOTO)
    _, failures = decoder.run([None, good], ["s3://bucket/a.png", None])
    assert [failure and failure[1].code for failure in failures] == ["FILE_UNREADABLE", None]
    _, failures = decoder.run([None, None], ["one archived file", "another"])
    assert [failure and failure[1].code for failure in failures] == ["FILE_UNREADABLE", "FILE_UNREADABLE"]
    with pytest.raises(RunError, match=r"^\[STORAGE_READ\].*2 files.*'s3://bucket/a.png'"):
        decoder.run([None, None], ["s3://bucket/a.png", "s3://bucket/b.png"])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"size": (8, 8), "resize_shorter": 8},
        {"size": (8, 8), "mean": (0.1, 0.2)},
        {"size": (8, 8), "dtype": "uint8", "std": (0.5,)},
    ],
)
def test_a_step_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\[IMAGE_STEP\]"):
        ImageStep(**arguments)


def test_a_batch_begins_where_a_framework_can_take_it_without_a_copy() -> None:
    for rows in (0, 1, 5):
        batch, failures = decode(
            ImageStep(column="c", mode="L", size=(3, 3)), *[encoded(Image.new("L", (3, 3)))] * rows
        )
        assert (len(batch), len(failures)) == (rows, rows)
        assert batch.ctypes.data % 64 == 0
        assert batch.flags.writeable
