"""Images to images on executors: one row at a time, or a group of rows through a user's pandas function.

``transform_rows`` and ``find_failed`` are for ``mapInArrow``, ``transform_group`` for ``applyInPandas``. A row that
fails is left out by the first and explained by the second; a failing group fails the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from PIL import Image

from lakemill_udfs.errors import RowError, RunError
from lakemill_udfs.failures import foreign, kind_of
from lakemill_udfs.files import NO_FILES, RowFiles
from lakemill_udfs.images.encoding import WRITTEN, encode, fitted
from lakemill_udfs.images.opening import DEFAULT_LIMITS, DecodeLimits, open_image, row_errors, upright
from lakemill_udfs.images.pixels import deep_upright, eight_bits, is_deep
from lakemill_udfs.steps.functions import import_function

if TYPE_CHECKING:
    import pandas as pd

FAILED = pa.schema([("path", pa.string()), ("code", pa.string()), ("message", pa.string())])
"""Rows that could not be transformed, and why."""


@dataclass(frozen=True)
class ImageTransform:
    """What becomes of each image: upright, then in this order grey, resized, cropped, given to the function, encoded.

    Args:
        grayscale: Whether to make it grey.
        size: Height and width to resize to, whatever the shape was.
        resize_shorter: Length of the shorter side to resize to; the shape is kept.
        crop: Height and width to cut out of the middle.
        resample: Pillow's filter for resizing.
        function: ``module:function`` that takes a ``PIL.Image`` and returns one.
        format: The file format to write; None keeps the image's own, or takes PNG where that is not written.
        quality: 1 to 100, for JPEG, WebP and AVIF.
        archive: The zip that the function's module was shipped in; set by the driver.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 -- read by pydantic on the driver, which never comes here

    grayscale: bool = False
    size: tuple[int, int] | None = None
    resize_shorter: int | None = None
    crop: tuple[int, int] | None = None
    resample: str = "bicubic"
    function: str | None = None
    format: str | None = None
    quality: int = 90
    archive: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that exclude each other or do not exist.

        Raises:
            ValueError: With what is right instead.
        """
        if self.size and self.resize_shorter:
            raise ValueError("give size or resize_shorter, not both")
        if self.format is not None and self.format not in WRITTEN:
            raise ValueError(f"format '{self.format}' is none of {', '.join(WRITTEN)}")
        if self.resample.upper() not in Image.Resampling.__members__:
            raise ValueError(f"resample '{self.resample}' is none of {', '.join(Image.Resampling.__members__).lower()}")
        sizes = (*(self.size or ()), *(self.crop or ()), 1 if self.resize_shorter is None else self.resize_shorter)
        if min(sizes) < 1 or not 1 <= self.quality <= 100:
            raise ValueError("sizes must be at least 1 and quality between 1 and 100")


def apply_transform(image: Image.Image, transform: ImageTransform) -> Image.Image:
    """Return the transformed image.

    Raises:
        RowError: ``IMAGE_TOO_SMALL`` for the crop, ``FUNCTION_FAILED``, ``FUNCTION_RESULT``.
        ConfigError: ``FUNCTION_NOT_FOUND``.
    """
    with row_errors():
        # A deep image is grey already, and converting would clip it to 8 bits.
        grey = eight_bits(image).convert("L") if transform.grayscale and not is_deep(image) else image
        cropped = _crop(_resize(grey, transform), transform)
    return _call(cropped, transform)


def _resize(image: Image.Image, transform: ImageTransform) -> Image.Image:
    if transform.size:
        height, width = transform.size
    elif transform.resize_shorter:
        scale = transform.resize_shorter / min(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
    else:
        return image
    # Colours between two of a palette are not in it, and those of premultiplied or LAB pixels are no colours yet.
    plain = image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") or is_deep(image)
    full = image if plain else _colours(image)
    return full.resize((width, height), Image.Resampling[transform.resample.upper()])


def _colours(image: Image.Image) -> Image.Image:
    full = eight_bits(image, background=None)
    return full if full.mode in ("RGB", "RGBA") else full.convert("RGB")


def _crop(image: Image.Image, transform: ImageTransform) -> Image.Image:
    if not transform.crop:
        return image
    height, width = transform.crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if left < 0 or top < 0:
        got = f"{image.width} x {image.height}"
        raise RowError("IMAGE_TOO_SMALL", f"the crop needs {width} x {height} pixels, got {got}.")
    return image.crop((left, top, left + width, top + height))


def _call(image: Image.Image, transform: ImageTransform) -> Image.Image:
    if transform.function is None:
        return image
    function = _function(transform.function, transform.archive)
    try:
        result = function(image)
    except Exception as error:
        # Whatever it raises is this row's failure; its message may hold data, so only the kind is kept.
        raise RowError("FUNCTION_FAILED", f"{transform.function} raised {kind_of(error)}.") from error
    if not isinstance(result, Image.Image):
        raise RowError("FUNCTION_RESULT", f"{transform.function} must return a PIL.Image, got {type(result).__name__}.")
    return result


@lru_cache(maxsize=16)
def _function(path: str, archive: str | None) -> Callable[[Any], Any]:
    return foreign(import_function(path, archive))


@dataclass(frozen=True)
class ImageSource:
    """How rows' images are opened.

    Args:
        files: Which files may be read for rows without content.
        limits: What one image may cost.
    """

    files: RowFiles = NO_FILES
    limits: DecodeLimits = DEFAULT_LIMITS

    def open(self, path: str, content: bytes | None) -> tuple[Image.Image, str]:
        """Return a row's image, decoded and upright, and its format.

        Args:
            path: Of the file, which is read where there is no content.
            content: The encoded file.

        Raises:
            RowError: as ``RowFiles.read``, ``open_image`` and ``Opened.load``.
        """
        opened = open_image(self.files.read(path) if content is None else bytes(content), self.limits)
        opened.load()
        with row_errors():
            image = deep_upright(opened) if is_deep(opened.image) else opened.image
            return upright(image, opened.orientation), opened.kind


def transform_bytes(path: str, content: bytes | None, transform: ImageTransform, source: ImageSource) -> dict[str, Any]:
    """Return what a row's columns become.

    Args:
        path: Of the file, which is read where there is no content.
        content: The encoded file.
        transform: What to do.
        source: How images are opened.

    Raises:
        RowError: as ``ImageSource.open``, ``apply_transform`` and ``encode``.
    """
    image, own = source.open(path, content)
    kind = transform.format or (own if own in WRITTEN else "PNG")
    done = fitted(apply_transform(image, transform), kind)
    data = encode(done, kind, transform.quality)
    return {
        "content": data,
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": kind,
        "width": done.width,
        "height": done.height,
        "mode": done.mode,
        "orientation": None,
    }


def transform_rows(
    batches: Iterable[pa.RecordBatch], transform: ImageTransform, source: ImageSource
) -> Iterator[pa.RecordBatch]:
    """Yield the transformed rows, without those that fail; the other columns ride along.

    Args:
        batches: Have ``path`` and ``content``.
        transform: What to do.
        source: How images are opened.

    Yields:
        Batches of the same schema. Of ``length``, ``width``, ``height``, ``mode``, ``format``, ``sha256`` and
        ``orientation``, those that are there tell of the new image.

    Raises:
        RunError: ``STORAGE_READ``.
    """
    for batch in batches:
        results = list(_each(batch, transform, source))
        _check_outage(batch, [error for _, error in results], source)
        done = [values for values, _ in results]
        kept = batch.filter(pa.array([values is not None for values in done], pa.bool_()))
        good = [values for values in done if values is not None]
        columns = [
            pa.array([values[field.name] for values in good], field.type) if field.name in CHANGED else old
            for field, old in zip(batch.schema, kept.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def find_failed(
    batches: Iterable[pa.RecordBatch], transform: ImageTransform, source: ImageSource
) -> Iterator[pa.RecordBatch]:
    """Yield ``FAILED`` for rows that ``transform_rows`` left out.

    A function that fails only now and then may not fail again: such a row is named ``FUNCTION_UNSTEADY``.
    """
    for batch in batches:
        errors = [error or UNSTEADY for _, error in _each(batch, transform, source)]
        _check_outage(batch, errors, source)
        codes, messages = [error.code for error in errors], [error.message for error in errors]
        yield pa.RecordBatch.from_arrays([batch.column("path"), pa.array(codes), pa.array(messages)], schema=FAILED)


CHANGED = ("content", "length", "sha256", "format", "width", "height", "mode", "orientation")
UNSTEADY = RowError("FUNCTION_UNSTEADY", "the row failed when it was transformed, and did not fail again.")


def _each(
    batch: pa.RecordBatch, transform: ImageTransform, source: ImageSource
) -> Iterator[tuple[dict[str, Any] | None, RowError | None]]:
    for path, content in zip(batch.column("path"), batch.column("content"), strict=True):
        try:
            yield transform_bytes(path.as_py(), content.as_py(), transform, source), None
        except RowError as error:
            yield None, error


def _check_outage(batch: pa.RecordBatch, errors: Sequence[RowError | None], source: ImageSource) -> None:
    rows = zip(batch.column("path").to_pylist(), batch.column("content").is_null().to_pylist(), errors, strict=True)
    source.files.check_outage([(path, error) for path, named, error in rows if named])


def transform_group(frame: pd.DataFrame, function: str, archive: str | None) -> pd.DataFrame:
    """Return what a user's function makes of one group.

    Args:
        frame: All rows of the group, with their images in ``content``.
        function: ``module:function`` that takes and returns a ``pandas.DataFrame``.
        archive: The zip that the function's module was shipped in.

    Raises:
        RunError: ``FUNCTION_FAILED``.
    """
    try:
        result: pd.DataFrame = _function(function, archive)(frame)
    except Exception as error:
        message = f"{function} raised {kind_of(error)} on a group of {len(frame)} rows."
        raise RunError("FUNCTION_FAILED", message) from None  # its text may be a row's, and Spark logs the chain
    return result
