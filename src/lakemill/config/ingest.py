"""The configuration of ``ingest_images``: which files, into which table, within which limits."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lakemill.config.base import Bytes, EngineChoice, JobConfig, Strict, interval_seconds
from lakemill_udfs.images.files import Limits

ARROW_BINARY_BYTES = 2**30
"""The largest image stored in a row: Spark and Arrow hold at most 2 GiB in one binary value, a batch a little more."""


class Pattern(Strict):
    """A label from the path.

    Args:
        pattern: A regular expression, searched in the whole path. The group ``label``, or else the first one, is the
            label; a path that it does not match has none.
    """

    pattern: str

    @field_validator("pattern")
    @classmethod
    def _has_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
        if not groups:
            raise ValueError(f"'{pattern}' has no group; put parentheses around the label")
        return pattern


class FileSource(Strict):
    """Where the files are.

    Args:
        path: One folder, file or URL, or a list of them.
        glob: Keep files whose name matches one of these patterns; one with a slash is matched with the path below
            the source. Names and folders that begin with a dot are always left out.
        recursive: Whether to look into folders in folders.
        label: ``parent`` for the name of the file's folder, a pattern, or null for no labels. Rows that are in the
            table already keep theirs.
    """

    path: str | list[str]
    glob: str | list[str] | None = None
    recursive: bool = True
    label: Literal["parent"] | Pattern | None = None

    @property
    def paths(self) -> list[str]:
        """The sources as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def globs(self) -> list[str]:
        """The patterns as a list; an empty one keeps every file."""
        return [self.glob] if isinstance(self.glob, str) else self.glob or []


class ImageTable(Strict):
    """The table of images.

    Args:
        table: Path or catalog name. Rejected files go to ``<table>_quarantine``.
        partition_by: Columns that make folders. Only for tables far beyond a terabyte; the default is none.
    """

    table: str
    partition_by: tuple[Literal["label", "label_index", "format"], ...] = ()


class ImageLimits(Strict):
    """Sizes from which a file is not stored as it is.

    Args:
        max_bytes: Larger files are rejected.
        max_pixels: Images of more pixels are rejected, by their header.
        max_decoded_bytes: So are images whose decoding takes more memory, as far as the header says it.
        max_seconds: Thumbnails whose image takes longer to decode are left out.
        reference_above: Larger files keep their bytes where they are: ``content`` is null, and readers go to ``path``.
    """

    max_bytes: Bytes = Limits.max_bytes
    max_pixels: Annotated[int, Field(gt=0)] = Limits.max_pixels
    max_decoded_bytes: Bytes = Limits.max_decoded_bytes
    max_seconds: Annotated[float, Field(gt=0)] = Limits.max_seconds
    reference_above: Annotated[Bytes, Field(ge=0, le=ARROW_BINARY_BYTES)] = Limits.reference_above

    def limits(self) -> Limits:
        """Return them as the value that executors take."""
        return Limits(**self.model_dump())


class Thumbnails(Strict):
    """A narrow table for browsing.

    Args:
        table: Path or catalog name.
        size: Longest side in pixels.
    """

    table: str
    size: Annotated[int, Field(ge=8, le=1024)] = 128


class IngestConfig(JobConfig):
    """What ``ingest_images`` does.

    Args:
        source: Where the files are.
        output: The table of images.
        limits: Sizes from which a file is rejected or kept by its path.
        thumbnails: A table of thumbnails, or null for none.
        trigger: ``once``, or an interval such as ``30 seconds`` or ``1 minute``: list again and add what is new.
        engine: Where it runs.
    """

    source: FileSource
    output: ImageTable
    limits: ImageLimits = ImageLimits()
    thumbnails: Thumbnails | None = None
    trigger: str = "once"
    engine: EngineChoice = EngineChoice()

    @field_validator("trigger")
    @classmethod
    def _known_trigger(cls, trigger: str) -> str:
        interval_seconds(trigger, once="once")
        return trigger

    @property
    def every_seconds(self) -> int | None:
        """The interval in seconds, or None for one run."""
        return interval_seconds(self.trigger, once="once")
