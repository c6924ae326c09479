"""What becomes of one image in a transform."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lakemill.cli.app import guarded
from lakemill.config.transform import TransformConfig
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.files import RowFiles
from lakemill_udfs.images.encoding import encode
from lakemill_udfs.images.transforms import (
    ImageSource,
    ImageTransform,
    apply_transform,
    find_failed,
    transform_bytes,
    transform_rows,
)
from lakemill_udfs.steps.functions import import_function

SOURCE = ImageSource(RowFiles(("/",)))


def decode(content: bytes) -> Image.Image:
    """Return an image as a transform gets it."""
    return SOURCE.open("a", content)[0]


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return a gradient of a mode."""
    across = np.linspace(0, 255, size[0], dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(across[None, :, None], (size[1], size[0], 3)).copy()).convert(mode)


def data(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """Return the gradient as a file."""
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("transform", "size", "mode"),
    [
        (ImageTransform(), (40, 30), "RGB"),
        (ImageTransform(grayscale=True), (40, 30), "L"),
        (ImageTransform(size=(10, 20)), (20, 10), "RGB"),
        (ImageTransform(resize_shorter=15), (20, 15), "RGB"),
        (ImageTransform(crop=(10, 12)), (12, 10), "RGB"),
        (ImageTransform(resize_shorter=15, crop=(15, 15), grayscale=True), (15, 15), "L"),
    ],
)
def test_shapes_and_colours(transform: ImageTransform, size: tuple[int, int], mode: str) -> None:
    """Sizes are height and width, as everywhere in a configuration."""
    after = apply_transform(picture(), transform)
    assert (after.size, after.mode) == (size, mode)


def test_the_crop_is_the_middle() -> None:
    """Left and right of it as much is cut away."""
    after = apply_transform(picture(), ImageTransform(crop=(30, 20)))
    assert np.array_equal(np.asarray(after), np.asarray(picture())[:, 10:30])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_every_usual_image_can_be_encoded_in_every_format(kind: str, mode: str) -> None:
    """Without a failure, and recognisably the same picture."""
    after = decode(encode(picture(mode), kind, quality=95))
    grey = np.asarray(after.convert("L"), dtype=int)
    assert abs(grey - np.asarray(picture(mode).convert("L"), dtype=int)).mean() < 40


def test_deep_pixels_are_not_clipped_silently() -> None:
    """16 bits stay 16 bits, or are refused."""
    deep = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    assert decode(encode(apply_transform(deep, ImageTransform(grayscale=True)), "PNG", 90)).getpixel((0, 0)) == 40_000
    with pytest.raises(RowError, match="IMAGE_ENCODE"):
        encode(deep, "JPEG", 90)


def test_an_image_is_turned_upright() -> None:
    """The new file has no EXIF, so its pixels must be upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    row = transform_bytes("a", data("JPEG", exif=exif), ImageTransform(), SOURCE)
    assert (row["width"], row["height"], row["orientation"]) == (30, 40, None)
    assert decode(row["content"]).size == (30, 40)


def test_the_other_columns_tell_of_the_new_file() -> None:
    """Length, hash, format and mode are those of what is stored."""
    row = transform_bytes("a", data(), ImageTransform(grayscale=True, format="JPEG"), SOURCE)
    assert (row["format"], row["mode"], row["length"]) == ("JPEG", "L", len(row["content"]))
    assert row["sha256"] == hashlib.sha256(row["content"]).hexdigest()


FUNCTIONS = """
def flip(image):
    return image.transpose(0)

def fail(image):
    raise KeyError("secret")

def nothing(image):
    return None
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a user's module on the import path."""
    (tmp_path / "my_pictures.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_pictures"


def test_functions_are_found_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line looks for the user's module where it is started."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_me.py").write_text(FUNCTIONS)
    assert guarded(lambda: import_function("beside_me:flip") is None) == 0
    assert guarded(lambda: import_function("beside_them:flip") is None) == 2


def test_a_users_function_comes_last(functions: str) -> None:
    """It gets the resized image, and its result is what is encoded."""
    after = apply_transform(picture(), ImageTransform(size=(30, 40), function=f"{functions}:flip"))
    assert np.array_equal(np.asarray(after), np.asarray(picture())[:, ::-1])


def test_rows_that_fail_are_left_out_and_explained_without_their_data(functions: str) -> None:
    """Each row is in exactly one of the two results."""
    batch = pa.RecordBatch.from_pylist(
        [
            {"path": "good", "content": data(), "label": "x", "width": 1},
            {"path": "bad", "content": data()[:-40], "label": "y", "width": 2},
            {"path": "/no/such/file", "content": None, "label": "z", "width": 3},
        ]
    )
    [after] = transform_rows([batch], ImageTransform(size=(5, 5)), SOURCE)
    assert after.schema == batch.schema
    assert [(row["path"], row["label"], row["width"]) for row in after.to_pylist()] == [("good", "x", 5)]
    [failed] = find_failed([batch.slice(1)], ImageTransform(size=(5, 5)), SOURCE)
    assert [(row["path"], row["code"]) for row in failed.to_pylist()] == [
        ("bad", "IMAGE_TRUNCATED"),
        ("/no/such/file", "FILE_NOT_FOUND"),
    ]
    for name, code in (("fail", "FUNCTION_FAILED"), ("nothing", "FUNCTION_RESULT")):
        [failed] = find_failed([batch.slice(0, 1)], ImageTransform(function=f"{functions}:{name}"), SOURCE)
        [row] = failed.to_pylist()
        assert row["code"] == code
        assert "secret" not in row["message"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"transform": {"size": [8, 8], "resize_shorter": 8}}, "not both"),
        ({"transform": {"format": "HEIC"}}, "none of JPEG, PNG"),
        ({"transform": {"resample": "best"}}, "none of nearest"),
        ({"transform": {"crop": [0, 8]}}, "at least 1"),
        ({"transform": {"grey": True}}, "unknown key 'transform.grey'"),
        ({"group_by": ["label"]}, "has a function and nothing else"),
        ({"output": {"table": "a/b", "columns": "path string"}}, "goes with group_by"),
    ],
)
def test_a_wrong_configuration_says_what_is_right(values: dict[str, Any], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=r"\[CONFIG_INVALID\]") as caught:
        TransformConfig.load(**({"source__table": "lake/images", "output__table": "lake/small"} | values))
    assert message in str(caught.value)
