"""Reading files by path or URI: local, ``s3:``, ``gs:``, ``abfss:`` or ``hdfs:``, with the environment's credentials."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from pyarrow import fs

URI = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+:/")


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of ``path`` and the path inside it; a path without a scheme is local.

    Raises:
        OSError: the file system cannot be reached.
    """
    if not URI.match(path):
        return fs.LocalFileSystem(), str(Path(path).absolute())
    if path.startswith("file:/") and not path.startswith("file://"):  # Spark's form, which pyarrow refuses
        path = "file://" + path.removeprefix("file:")
    scheme, _, rest = path.partition("://")
    store = _store(scheme.replace("s3a", "s3"), rest.partition("/")[0])
    return store, store.normalize_path(rest if scheme != "file" else rest.removeprefix("localhost"))


@lru_cache(maxsize=16)
def _store(scheme: str, authority: str) -> fs.FileSystem:
    if scheme == "file":
        return fs.LocalFileSystem()
    store, _ = fs.FileSystem.from_uri(f"{scheme}://{authority}/")
    return store


def read_bytes(path: str) -> bytes:
    """Return a file's content.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the storage does not answer or refuses.
    """
    store, inside = filesystem(path)
    with store.open_input_stream(inside) as stream:
        data: bytes = stream.read()
    return data
