"""A few images before and after a transform, made on the driver: look before a whole table is transformed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from lakemill.config.own_output import writing
from lakemill.engines.choice import open_engine
from lakemill.transform.job import image_source, open_source, transform_needs
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.images.opening import row_errors
from lakemill_udfs.images.pixels import for_the_eye
from lakemill_udfs.images.transforms import ImageSource, apply_transform

if TYPE_CHECKING:
    from lakemill.config.transform import TransformConfig
    from lakemill.engines.choice import SparkSession

CELL, MARGIN, CAPTION = 256, 16, 28  # pixels
BACKGROUND, INK, GREY = (255, 255, 255), (30, 30, 30), (235, 235, 235)


@dataclass(frozen=True)
class Sample:
    """One image before and after.

    Args:
        path: The row's path.
        before: The image, upright and as it is looked at; None if it does not decode.
        after: The transformed image, as it is looked at; None if it failed.
        error: Why there is no ``after``.
    """

    path: str
    before: Image.Image | None = None
    after: Image.Image | None = None
    error: str | None = None


def sample(config: TransformConfig, count: int, spark: SparkSession | None = None) -> list[Sample]:
    """Transform the first rows of the source on the driver; nothing is written.

    Args:
        config: What to do.
        count: How many rows.
        spark: The session to use; without one, ``config.engine`` says what it runs on.

    Raises:
        ConfigError: ``SAMPLE_GROUPS`` with ``group_by``, and as ``transform_images``.
    """
    if config.group_by:
        raise ConfigError(
            "SAMPLE_GROUPS",
            "a sample shows images row by row, and this job transforms groups.",
            hint="use source.where to run it on one small group.",
        )
    engine = open_engine(spark, transform_needs(config, writes=False), config.engine)
    rows, source = open_source(config, engine).select(["path", "content"]).limit(count), image_source(config, engine)
    return [_one(config, source, row["path"], row["content"]) for row in rows.to_arrow().to_pylist()]


def _one(config: TransformConfig, source: ImageSource, path: str, content: bytes | None) -> Sample:
    before = None
    try:
        with row_errors():
            image, _ = source.open(path, content)
            before = for_the_eye(image)
            return Sample(path, before, for_the_eye(apply_transform(image, config.transform)))
    except RowError as error:
        return Sample(path, before, error=str(error))


def write_sample(
    config: TransformConfig, count: int, spark: SparkSession | None = None, folder: Path | None = None
) -> Path:
    """Write a picture with each sampled image beside what became of it, and return its path.

    Args:
        config: What to do.
        count: How many rows.
        spark: The session to use; without one, ``config.engine`` says what it runs on.
        folder: Where the PNG goes, named after the job; by default the working folder.

    Raises:
        ConfigError: As ``sample``.
    """
    samples = sample(config, count, spark)
    height = CELL + CAPTION
    sheet = Image.new("RGB", (2 * CELL + 3 * MARGIN, max(1, len(samples)) * (height + MARGIN) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, one in enumerate(samples):
        top = MARGIN + index * (height + MARGIN)
        _paste(sheet, one.before, MARGIN, top)
        _paste(sheet, one.after, 2 * MARGIN + CELL, top)
        caption = one.error or f"{_size(one.before)} to {_size(one.after)}"
        draw.text((MARGIN, top + CELL + 2), _end(one.path, 80), INK)
        draw.text((MARGIN, top + CELL + 14), _end(caption, 85), INK)
    target = (folder or Path.cwd()) / f"{config.name}_sample.png"
    with writing(target):
        sheet.save(target)
    return target


def _paste(sheet: Image.Image, image: Image.Image | None, left: int, top: int) -> None:
    sheet.paste(GREY, (left, top, left + CELL, top + CELL))
    if image is not None:
        small = image.convert("RGB")
        small.thumbnail((CELL, CELL))
        sheet.paste(small, (left + (CELL - small.width) // 2, top + (CELL - small.height) // 2))


def _size(image: Image.Image | None) -> str:
    return f"{image.width} x {image.height} {image.mode}" if image else "nothing"


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else "..." + text[3 - length :]
