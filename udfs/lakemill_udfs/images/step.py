"""Encoded images to one normalised tensor: decode, orient, resize, crop and normalise.

The crop happens inside the resize (``Image.resize(box=...)``), large JPEGs are decoded at a fraction of their size, and
each image is normalised straight into its place of a preallocated batch: a third less time than one after another.
"""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lakemill_udfs.errors import ConfigError, RowError, RunError
from lakemill_udfs.files import read_bytes
from lakemill_udfs.steps.declared import ImageStep

Failure = tuple[str, RowError]
"""A row's stage (``read`` or ``decode``) and why it failed there."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
"""What Lakemill reads; Pillow knows more, of which some are dangerous (EPS runs Ghostscript)."""

DRAFT_GAP = 2
"""A JPEG is decoded at the smallest scale that still has twice the wanted pixels, as Pillow's ``reducing_gap``."""

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class ImageDecoder:
    """Runs one ``ImageStep``; keeps its constants and the seconds spent.

    Args:
        step: The step.

    Attributes:
        decode_seconds: Reading and decoding so far.
        preprocess_seconds: Resizing and normalising so far.
    """

    def __init__(self, step: ImageStep) -> None:
        self.step = step
        channels = len(step.mode)
        unit = 1 / 255 if step.dtype != "uint8" else 1.0
        mean = np.broadcast_to(np.asarray(step.mean or (0.0,), dtype=np.float64), (channels,))
        std = np.broadcast_to(np.asarray(step.std or (1.0,), dtype=np.float64), (channels,))
        compute = np.float64 if step.dtype == "float64" else np.float32
        axes = (channels, 1, 1) if step.layout == "NCHW" else (channels,)
        self._scale = (unit / std).astype(compute).reshape(axes)
        self._shift = (-mean / std).astype(compute).reshape(axes)
        self._resample = Image.Resampling[step.resample.upper()]
        self.decode_seconds = self.preprocess_seconds = 0.0

    def run(self, contents: Sequence[Any], paths: Sequence[str | None]) -> tuple[NDArray[Any], list[Failure | None]]:
        """Decode a batch.

        Args:
            contents: One image file's bytes a row, or None to read the row's path.
            paths: One path a row, or None.

        Returns:
            The tensor of the rows that decoded, in order, as the step's ``spec``; and for each row None or its failure.
        """
        spec = self.step.spec
        batch = np.empty((len(contents), *(size or 0 for size in spec.shape)), dtype=spec.numpy_dtype)
        failures: list[Failure | None] = []
        filled = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below, with a code
            for content, path in zip(contents, paths, strict=True):
                failure = self._fill(batch[filled], content, path)
                failures.append(failure)
                filled += failure is None
        return batch[:filled], failures

    def _fill(self, target: NDArray[Any], content: Any, path: str | None) -> Failure | None:
        started = time.perf_counter()
        try:
            data = content if content is not None else self._read(path)
        except RowError as error:
            return "read", error
        try:
            image, resized = self._open(data)
            decoded = time.perf_counter()
            pixels = np.asarray(self._resize(image, resized))
            self._normalise(pixels, target)
        except RowError as error:
            return "decode", error
        except MemoryError:
            raise  # no memory for one image is a broken environment, not a broken row
        except Image.DecompressionBombError:
            return "decode", RowError("IMAGE_TOO_MANY_PIXELS", "the image has more pixels than Pillow opens.")
        except Exception as error:  # Pillow's plugins raise anything on a damaged file; it is this row's fault
            return "decode", RowError("IMAGE_DECODE", f"the image does not decode ({type(error).__name__}).")
        self.decode_seconds += decoded - started
        self.preprocess_seconds += time.perf_counter() - decoded
        return None

    def _read(self, path: str | None) -> bytes:
        if path is None:
            raise RowError(
                "IMAGE_MISSING",
                f"column '{self.step.column}' is null and there is no path in '{self.step.path_column}'.",
            )
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RowError("FILE_NOT_FOUND", "the file that the row refers to is gone.") from error
        except (ConfigError, IsADirectoryError, ValueError) as error:
            raise RowError("FILE_PATH", "the path that the row refers to is none of a file.") from error
        except OSError as error:
            if "is a directory" in str(error):  # pyarrow has no exception of its own for it
                raise RowError("FILE_PATH", "the path that the row refers to is a folder.") from error
            cause = os.strerror(error.errno) if error.errno else type(error).__name__
            raise RunError(
                "STORAGE_READ",
                f"the storage of the images does not answer ({cause}).",
                hint="run again once it does; nothing of this batch was committed.",
            ) from None  # pyarrow's message holds the row's path

    def _open(self, data: Any) -> tuple[Image.Image, tuple[int, int]]:
        """Return the upright image, large JPEGs at a fraction of their size, and the size that it is resized to."""
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > self.step.max_pixels:
            raise RowError(
                "IMAGE_TOO_MANY_PIXELS",
                f"the image has {width}x{height} pixels; at most {self.step.max_pixels} are allowed.",
            )
        orientation = image.getexif().get(0x0112, 1) if self.step.orient else 1
        sideways = orientation in SIDEWAYS and image.format != "TIFF"  # whose size Pillow gives upright
        resized = self._resized((height, width) if sideways else (width, height))
        if image.format == "JPEG":
            across, down = resized[::-1] if sideways else resized
            image.draft("L" if self.step.mode == "L" else "RGB", (across * DRAFT_GAP, down * DRAFT_GAP))
        image.load()
        if image.mode != self.step.mode:
            image = _to_eight_bits(image).convert(self.step.mode)
        if orientation != 1:
            ImageOps.exif_transpose(image, in_place=True)
        return image, resized

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the whole image's ``(width, height)`` after the resize and before the crop."""
        if self.step.size is not None:
            return self.step.size[1], self.step.size[0]
        if self.step.resize_shorter is None:
            return size
        shorter, longer = sorted(size)
        other = max(1, int(self.step.resize_shorter * longer / shorter))  # torchvision's Resize rounds down
        return (self.step.resize_shorter, other) if size[0] <= size[1] else (other, self.step.resize_shorter)

    def _resize(self, image: Image.Image, resized: tuple[int, int]) -> Image.Image:
        if self.step.crop is None:
            return image if image.size == resized else image.resize(resized, self._resample)
        height, width = self.step.crop
        left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
        if left < 0 or top < 0:
            raise RowError(
                "IMAGE_TOO_SMALL",
                f"the crop needs {width}x{height} pixels; the resized image has {resized[0]}x{resized[1]}.",
            )
        if image.size == resized:
            return image.crop((left, top, left + width, top + height))
        across, down = image.size[0] / resized[0], image.size[1] / resized[1]
        box = (
            left * across,
            top * down,
            min((left + width) * across, image.size[0]),
            min((top + height) * down, image.size[1]),
        )
        return image.resize((width, height), self._resample, box=box)

    def _normalise(self, pixels: NDArray[np.uint8], target: NDArray[Any]) -> None:
        """Write ``(height, width[, channels])`` pixels into one row of the batch."""
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        if self.step.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        view = target.reshape(pixels.shape)
        view[...] = pixels
        if self.step.dtype != "uint8":  # in place: the row stays in the processor's cache
            view *= self._scale
            view += self._shift


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16- and 32-bit grey images to 0..255 (Pillow's own conversion clips them)."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    return image
