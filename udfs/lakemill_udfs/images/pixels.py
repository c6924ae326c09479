"""Pixels of any kind to 8 bits a channel: deep values by their range, transparency on a background, LAB as colours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lakemill_udfs.errors import RowError
from lakemill_udfs.images.opening import Opened

WHITE = (255, 255, 255)

Colour = tuple[int, int, int]
Range = tuple[float, float]


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey with more than 8 bits a value."""
    return image.mode.startswith(("I", "F"))


def eight_bits(image: Image.Image, background: Colour | None = WHITE) -> Image.Image:
    """Return an image of 8 bits a channel that Pillow converts to ``L``, ``RGB`` and ``RGBA``.

    Args:
        image: Not a deep one.
        background: What transparent pixels are laid on; None leaves them, with the colours that lie under them.
    """
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_rgb()) or image
    if not image.has_transparency_data:
        return image
    whole = image.convert("LA") if image.mode == "La" else image
    colours = whole.convert("RGBA")
    if background is None or colours.getchannel("A").getextrema()[0] == 255:
        return colours
    ground = Image.new("RGBA", image.size, (*background, 255))
    ground.alpha_composite(colours)
    return ground.convert("RGB")


@lru_cache(maxsize=1)
def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, inMode="LAB", outMode="RGB")


def deep_values(opened: Opened) -> NDArray[Any]:
    """Return a deep image's values with their real dtype: uint16, uint32, int32 or float32, ``(height, width)``."""
    values = np.asarray(opened.image)
    kind, bits = opened.sample
    return values.view(np.uint32) if values.dtype == np.int32 and (kind, bits) == ("uint", 32) else values


def scaled(opened: Opened, value_range: Range | None) -> Image.Image:
    """Return a deep image as floats from 0 to 255, black to white, of mode ``F``; of ``LA`` if a value is transparent.

    Args:
        opened: The image, decoded.
        value_range: The values that are black and white; others are cut off there. None takes all that the bits can
            hold for unsigned integers of up to 16 bits, and 0..1 for floats that lie in it.

    Raises:
        RowError: ``IMAGE_VALUE_RANGE`` if the range is not declared and does not follow, or a value is no number.
    """
    values = deep_values(opened)
    finite = values.dtype.kind != "f" or bool(np.isfinite(values).all())
    if not finite:
        raise RowError("IMAGE_VALUE_RANGE", "the image holds values that are no finite numbers.")
    low, high = value_range or _default_range(opened, values)
    pixels = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    np.clip(pixels, 0, 255, out=pixels)
    if opened.white_is_zero:
        np.subtract(255, pixels, out=pixels)
    clear = opened.image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(pixels)
    seen = np.where(values == clear, 0, 255)
    return Image.fromarray(np.dstack([np.rint(pixels), seen]).astype(np.uint8), "LA")


def _default_range(opened: Opened, values: NDArray[Any]) -> Range:
    kind, bits = opened.sample
    if kind == "uint" and bits <= 16:
        return 0.0, float(2**bits - 1)
    low, high = float(values.min()), float(values.max())
    if kind == "float" and low >= 0 and high <= 1:
        return 0.0, 1.0
    raise RowError(
        "IMAGE_VALUE_RANGE",
        f"nothing says which values of this image ({kind}{bits}) are black and white.",
        hint="declare it in the image step: value_range: [0, 4095]",
    )


def deep_upright(opened: Opened) -> Image.Image:
    """Return a deep image whose small values are black, with the values that it has.

    Raises:
        RowError: ``IMAGE_VALUE_RANGE`` if its white is zero and its values have no top.
    """
    if not opened.white_is_zero:
        return opened.image
    values = deep_values(opened)
    high = _default_range(opened, values)[1]
    return Image.fromarray(np.subtract(high, values, dtype=np.float64).astype(values.dtype))


def for_the_eye(image: Image.Image) -> Image.Image:
    """Return an image as ``L``, ``RGB`` or ``RGBA``, to be looked at: deep values from the least to the greatest."""
    if not is_deep(image):
        plain = eight_bits(image, background=None)
        return plain.convert("L" if plain.mode in ("1", "L") else "RGBA" if plain.mode == "RGBA" else "RGB")
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if not low < high:
        low, high = 0.0, max(high, 1.0) if image.mode == "F" else 65535.0
    return Image.fromarray(np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.uint8))
