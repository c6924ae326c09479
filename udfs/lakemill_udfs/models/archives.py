"""Zip files that hold a model: unpacked into a folder of their own, and nowhere else."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from lakemill_udfs.errors import ModelError

MOST_BYTES = 32 * 2**30
"""Of all files of an archive; more is taken for a bomb."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into a folder.

    Raises:
        ModelError: ``MODEL_PATH`` for an entry that leads out of the folder or is a link, or for files of more than
            32 GiB; ``MODEL_LOAD`` if it is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                parts = PurePosixPath(entry.filename.replace("\\", "/"))
                if parts.is_absolute() or ".." in parts.parts or stat.S_ISLNK(entry.external_attr >> 16):
                    raise _refused(archive, "holds an entry that leads out of its folder")
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise _refused(archive, "unpacks to more than 32 GiB")
            opened.extractall(folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError("MODEL_LOAD", f"the archive '{archive.name}' is damaged or cut short.") from error


def _refused(archive: Path, why: str) -> ModelError:
    return ModelError("MODEL_PATH", f"the archive '{archive.name}' {why}.", hint="zip the model's own folder again.")
