"""The configuration of ``transform_images``: images of one table to images of another."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from lakemill.config.base import EngineChoice, JobConfig, Strict
from lakemill.config.row_files import ImageRowLimits
from lakemill_udfs.images.transforms import ImageTransform


class TransformSource(Strict):
    """The table to read; it has ``path`` and ``content``.

    Args:
        table: Path or catalog name.
        where: Spark SQL predicate on its rows.
        version: A version or timestamp to read; null is the newest.
    """

    table: str
    where: str | None = None
    version: int | str | None = None


class TransformOutput(Strict):
    """The table to write, which each run overwrites in one commit.

    Args:
        table: Path or catalog name. Rows that fail go to ``<table>_quarantine``.
        columns: Only with ``group_by``: what the function returns, as SQL (``path string, score double``); null is the
            source's columns.
    """

    table: str
    columns: str | None = None


class TransformConfig(JobConfig):
    """What ``transform_images`` does.

    Args:
        source: The table to read.
        transform: What becomes of each image.
        group_by: Columns whose groups go as a whole, as one ``pandas.DataFrame``, to ``transform.function``, which
            returns a DataFrame. Nothing else of ``transform`` applies then.
        output: The table to write.
        limits: What a row may make the job read and decode.
        engine: Where it runs.
    """

    source: TransformSource
    transform: ImageTransform = ImageTransform()
    group_by: tuple[str, ...] = ()
    output: TransformOutput
    limits: ImageRowLimits = ImageRowLimits()
    engine: EngineChoice = EngineChoice()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.group_by and self.transform != ImageTransform(function=self.transform.function or ""):
            raise ValueError("with group_by, transform has a function and nothing else")
        if self.output.columns and not self.group_by:
            raise ValueError("output.columns goes with group_by: images row by row keep the source's columns")
        return self
