"""Which files the rows of a table may name by their path, and what one image may cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from lakemill.config.base import Bytes, Strict
from lakemill_udfs.files import RowFiles, local_name, local_path
from lakemill_udfs.images.opening import DecodeLimits

ROOTS_PROPERTY = "lakemill.roots"
"""The table property in which ingest keeps where its files came from: a JSON list of folders, files and URIs."""


class RowLimits(Strict):
    """What a row may make a job read.

    Args:
        allowed_roots: Folders, files or URIs; a row's path is opened only below one. Without any, these are where
            ingest took the table's files from, as the table's property ``lakemill.roots`` says; other tables have none.
        max_bytes: Larger files are not read.
    """

    allowed_roots: tuple[str, ...] = ()
    max_bytes: Bytes = RowFiles.max_bytes

    def files(self, properties: Mapping[str, str]) -> RowFiles:
        """Return them as the value that workers take.

        Args:
            properties: Of the source table.
        """
        return RowFiles(self.allowed_roots or recorded_roots(properties), self.max_bytes)


class ImageRowLimits(RowLimits):
    """What a row may make a job read and decode.

    Args:
        max_pixels: Images of more pixels are an error of their row, by their header.
        max_decoded_bytes: So are images whose decoding takes more memory.
        max_seconds: And those whose decoding takes longer.
    """

    max_pixels: Annotated[int, Field(gt=0)] = DecodeLimits.max_pixels
    max_decoded_bytes: Bytes = DecodeLimits.max_decoded_bytes
    max_seconds: Annotated[float, Field(gt=0)] = DecodeLimits.max_seconds

    @property
    def decode(self) -> DecodeLimits:
        """What one image may cost, as the value that workers take."""
        return DecodeLimits(self.max_pixels, self.max_decoded_bytes, self.max_seconds)


def recorded_roots(properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return where a table's files came from, as ingest recorded it; nothing where it did not."""
    try:
        roots = json.loads(properties.get(ROOTS_PROPERTY, "[]"))
    except ValueError:
        return ()
    return tuple(root for root in roots if isinstance(root, str)) if isinstance(roots, list) else ()


def roots_property(paths: Iterable[str], properties: Mapping[str, str]) -> str | None:
    """Return what ``lakemill.roots`` must be for files of ``paths``; None where it is that already.

    Args:
        paths: Of an ingest source.
        properties: The table's.
    """
    known = recorded_roots(properties)
    absolute = [path if (local := local_path(path)) is None else local_name(local) for path in paths]
    new = [path for path in dict.fromkeys(absolute) if path not in known]
    return json.dumps([*known, *new]) if new else None
