"""Files that a command writes where its user says: what stands in the way has a code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakemill_udfs.errors import ConfigError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file where one cannot be written.

    Raises:
        ConfigError: ``FILE_NOT_WRITTEN``.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            "FILE_NOT_WRITTEN",
            f"'{path}' cannot be written: {type(error).__name__}.",
            hint="name a file in a folder that is there, and that is yours to write.",
        ) from error
