"""Reading files by path or URI: local, ``s3:``, ``gs:``, ``abfss:`` or ``hdfs:``, with the environment's credentials.

A file of a store is named ``scheme://authority/key`` with the key as the store has it: nothing is percent-encoded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from pyarrow import ArrowInvalid, fs

from lakemill_udfs.errors import ConfigError

URI = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+:/")
HADOOP_SCHEMES = {"s3a": "s3", "s3n": "s3", "abfs": "abfss"}  # as Spark spells them: as Arrow does


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of ``path`` and the path inside it; a path without a scheme is local.

    Raises:
        ConfigError: ``SOURCE_SCHEME`` if no storage has the URI's scheme.
        OSError: the file system cannot be reached.
    """
    if not URI.match(path):
        return fs.LocalFileSystem(), str(Path(path).absolute())
    if path.startswith("file:/") and not path.startswith("file://"):  # Spark's form, which pyarrow refuses
        path = "file://" + path.removeprefix("file:")
    scheme, _, rest = path.partition("://")
    authority, _, key = rest.partition("/")
    store, root = _store(HADOOP_SCHEMES.get(scheme, scheme), authority)
    return store, f"{root}/{key}"


@lru_cache(maxsize=16)  # making a store's client may ask the network for credentials
def _store(scheme: str, authority: str) -> tuple[fs.FileSystem, str]:
    try:
        store, root = fs.FileSystem.from_uri(f"{scheme}://{authority}/")
    except ArrowInvalid as error:
        raise ConfigError(
            "SOURCE_SCHEME",
            f"no storage here opens '{scheme}://' paths.",
            hint="use a local path, or s3://, gs://, abfss:// or hdfs://.",
        ) from error
    return store, root.rstrip("/")


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
