"""What a picture's values become: deep, inverted, transparent, turned; and what is no picture."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.images.formats import PLUGINS
from lakemill_udfs.images.opening import DecodeLimits, open_image
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.images.thumbnails import small_image
from lakemill_udfs.images.transforms import ImageSource, ImageTransform, transform_bytes
from lakemill_udfs.steps.declared import ImageStep


def encoded(image: Image.Image, kind: str = "TIFF", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: Any, **options: Any) -> bytes:
    """Return values, two rows of four, as a TIFF."""
    return encoded(Image.fromarray(np.broadcast_to(np.asarray(values), (2, 4)).copy()), **options)


def pixels(data: bytes, **options: Any) -> Any:
    """Return the first row of what a model gets, or the code of the row's error."""
    step = ImageStep(**({"mode": "L", "size": (2, 4)} | options))
    batch, [failure] = ImageDecoder(step).run([data], [None])
    return failure[1].code if failure else pytest.approx(batch.reshape(len(step.mode), 2, 4)[0, 0].tolist(), abs=1e-4)


def patched(data: bytes, tag: int, value: int) -> bytes:
    """Return a TIFF with another value in one of its short entries."""
    changed = bytearray(data)
    at = changed.find(struct.pack("<HHI", tag, 3, 1))
    assert at > 0
    changed[at + 8 : at + 10] = struct.pack("<H", value)
    return bytes(changed)


FLOATS = grey(np.array([0, 0.25, 0.5, 1], np.float32))


def test_floats_from_0_to_1_are_black_to_white() -> None:
    assert pixels(FLOATS) == [0, 0.25, 0.5, 1]
    assert pixels(FLOATS, dtype="uint8") == [0, 64, 128, 255]
    assert pixels(FLOATS, mode="RGB", dtype="float64") == [0, 0.25, 0.5, 1]
    assert pixels(FLOATS, mode="RGBA") == [0, 0.25, 0.5, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 100, 500, 1000], "float32"), ([-500, 0, 0, 500], "int16"), ([0, 10, 2**20, 2**21], "int32")],
)
def test_values_whose_range_nobody_knows_are_an_error_until_it_is_declared(values: list[int], dtype: str) -> None:
    """Never black, clipped or inverted in silence."""
    data = grey(np.array(values).astype(dtype))
    assert pixels(data) == "IMAGE_VALUE_RANGE"
    low, high = min(values), max(values)
    assert pixels(data, value_range=(low, high)) == [(value - low) / (high - low) for value in values]


def test_what_lies_outside_a_declared_range_is_cut_off_there() -> None:
    data = grey(np.array([-1000, 0, 40, 3000], np.int16))
    assert pixels(data, value_range=(-160, 240)) == [0, 0.4, 0.5, 1]
    twelve_bits = grey(np.array([0, 1024, 2048, 4095], np.uint16))
    assert pixels(twelve_bits, value_range=(0, 4095)) == [0, 1024 / 4095, 2048 / 4095, 1]


def test_values_that_are_no_numbers_are_an_error() -> None:
    assert pixels(grey(np.array([0, np.nan, 1, 1], np.float32)), value_range=(0, 1)) == "IMAGE_VALUE_RANGE"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_white_is_zero_is_not_inverted_in_silence(dtype: str, compression: str | None) -> None:
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    values = (np.array([0, 0.2, 0.6, 1]) * top).astype(dtype)
    data = patched(grey(values, compression=compression), 262, 0)
    assert pixels(data) == [1, 0.8, 0.4, 0]
    shown = np.asarray(small_image(data, 8).convert("L"))[0]
    assert shown[0] > shown[3]
    after = transform_bytes("a", data, ImageTransform(), ImageSource())["content"]
    assert pixels(after) == [1, 0.8, 0.4, 0]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_lies_on_the_background(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0)).convert(mode)
    data = encoded(image, "PNG", **({"transparency": 0} if mode == "P" else {}))
    assert pixels(data) == [1, 1, 1, 1]
    assert pixels(data, mode="RGB", background=(51, 0, 0)) == [0.2] * 4
    assert pixels(data, background=None) == [0] * 4
    opaque = encoded(Image.new("RGBA", (4, 2), (51, 51, 51, 255)), "PNG")
    assert pixels(opaque) == [0.2] * 4


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("image", "clear"),
    [
        (Image.new("1", (4, 2), 0), 0),
        (Image.new("L", (4, 2), 51), 51),
        (Image.new("RGB", (4, 2), (51, 51, 51)), (51, 51, 51)),
        (Image.fromarray(np.full((2, 4), 13107, np.uint16)), 13107),
    ],
    ids=["1", "L", "RGB", "I;16"],
)
def test_a_colour_that_a_png_declares_transparent_lies_on_the_background(
    image: Image.Image, clear: Any, mode: str
) -> None:
    opaque = pixels(encoded(image, "PNG"), mode=mode).expected
    data = encoded(image, "PNG", transparency=clear)
    assert pixels(data, mode=mode) == (opaque if mode == "RGBA" else [1] * 4)
    other = tuple(value + 1 for value in clear) if isinstance(clear, tuple) else clear + 1
    assert pixels(encoded(image, "PNG", transparency=other), mode=mode) == opaque


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_orient_false_leaves_every_format_as_it_is_stored(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("L", (40, 20), 0)
    wide.paste(255, (0, 0, 20, 20))  # the left half is white
    data = encoded(wide.convert("RGB"), kind, exif=exif)
    stored, [_] = ImageDecoder(ImageStep(mode="L", size=(2, 4), orient=False)).run([data], [None])
    turned, [_] = ImageDecoder(ImageStep(mode="L", size=(4, 2))).run([data], [None])
    np.testing.assert_allclose(stored[0, 0], [[1, 1, 0, 0]] * 2, atol=0.15)
    np.testing.assert_allclose(turned[0, 0], [[1, 1], [1, 1], [0, 0], [0, 0]], atol=0.15)


def test_a_damaged_unrelated_tag_spoils_no_photograph() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 1.5  # the resolution is a rational; here its type says bytes
    data = encoded(Image.new("L", (16, 8), 128), "JPEG", exif=exif)
    for order in "<>":
        data = data.replace(struct.pack(order + "HH", 0x011A, 5), struct.pack(order + "HH", 0x011A, 7), 1)
    assert pixels(data) == [128 / 255] * 4
    assert open_image(data, DecodeLimits()).orientation == 6


@pytest.mark.parametrize("what", ["text", "profile"])
def test_megabytes_that_are_no_part_of_the_picture_are_left_alone(what: str) -> None:
    info = PngImagePlugin.PngInfo()
    if what == "text":
        info.add_text("comment", "a" * 2_000_000, zip=True)
    options = {"icc_profile": bytes(2_000_000)} if what == "profile" else {"pnginfo": info}
    assert pixels(encoded(Image.new("L", (8, 8), 51), "PNG", **options)) == [0.2] * 4


def test_lab_has_colours() -> None:
    """As Photoshop writes it: full lightness and no colour is white."""
    data = encoded(Image.frombytes("LAB", (4, 2), bytes([255, 0, 0] * 8)))
    assert pixels(data) == [1] * 4
    assert transform_bytes("a", data, ImageTransform(format="JPEG"), ImageSource())["mode"] == "RGB"
    assert small_image(data, 4).getpixel((0, 0)) == pytest.approx((255, 255, 255), abs=1)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_a_compressed_tiff_is_transformed(compression: str) -> None:
    data = encoded(Image.new("RGB", (16, 16), (51, 51, 51)), compression=compression)
    row = transform_bytes("a", data, ImageTransform(size=(2, 4)), ImageSource())
    assert row["format"] == "TIFF"
    assert pixels(row["content"]) == [0.2] * 4


@pytest.mark.parametrize("kind", ["ICO", "TGA", "JPEG2000"])
def test_a_format_that_is_not_written_becomes_png(kind: str) -> None:
    row = transform_bytes("a", encoded(Image.new("RGBA", (16, 16)), kind), ImageTransform(), ImageSource())
    assert row["format"] == "PNG"


FOREIGN = {
    b"%PDF-1.7 ...": "PDF",
    b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>": "SVG",
    b"<!DOCTYPE html><html><body>403</body></html>": "HTML",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "error message",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n": "git lfs pull",
    b"%!PS-Adobe-3.0 EPSF-3.0\n": "PostScript",
    b"8BPS\0\1" + bytes(20): "Photoshop",
    b"FUJIFILMCCD-RAW 0201": "raw file",
    b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + struct.pack("<H", 0) + bytes(4): "raw file",
    b"\0\0\0\x18ftypcrx \0\0\0\1crx isom": "raw file",
    b"\0\0\0\x18ftypisom\0\0\0\1isomavc1": "video",
    bytes(128) + b"DICM": "DICOM",
    bytes(4000): "zero bytes",
    b"path,label\na.png,1\n": "text",
    b"PK\x03\x04rest": "ZIP",
    b"\x8e\x01\x9f\xfe\x02random": "not read",
}


@pytest.mark.parametrize("data", FOREIGN, ids=FOREIGN.values())
def test_what_is_no_image_is_told_by_its_own_words(data: bytes) -> None:
    with pytest.raises(RowError, match=r"^\[IMAGE_UNKNOWN_FORMAT\]") as caught:
        open_image(data, DecodeLimits())
    assert FOREIGN[data] in str(caught.value)


def test_an_empty_and_a_truncated_file_say_so() -> None:
    assert pixels(b"") == "FILE_EMPTY"
    noise = Image.effect_noise((64, 64), 90)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "TGA", "ICO"):
        whole = encoded(noise.convert("RGB"), kind, **({"sizes": [(64, 64)]} if kind == "ICO" else {}))
        assert pixels(whole[: len(whole) * 2 // 3]) in ("IMAGE_TRUNCATED", "IMAGE_HEADER"), kind


def test_heic_is_an_image_with_its_extra() -> None:
    """Without it the error names what to install."""
    header = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"
    try:
        import pillow_heif
    except ImportError:
        assert pixels(header) == "IMAGE_EXTRA_MISSING"
        return
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (51, 51, 51))).save(buffer)
    batch, [failure] = ImageDecoder(ImageStep(size=(2, 4))).run([buffer.getvalue()], [None])
    assert failure is None
    np.testing.assert_allclose(batch, 0.2, atol=0.02)
    assert pixels(header) in ("IMAGE_TRUNCATED", "IMAGE_HEADER")


def test_wrong_ranges_and_backgrounds_are_refused_when_the_step_is_made() -> None:
    for options in ({"value_range": (5, 5)}, {"background": (0, 0, 300)}):
        with pytest.raises(ConfigError, match=r"^\[IMAGE_STEP\]"):
            ImageStep(size=(8, 8), **options)


def test_every_format_that_is_read_has_its_end(tmp_path: Path) -> None:
    from lakemill_udfs.images.endings import END_OF

    assert set(END_OF) == {*PLUGINS, "HEIC"}
