"""Reading files by path or URI: local, ``s3:``, ``gs:``, ``abfss:`` or ``hdfs:``, with the environment's credentials.

A file of a store is named ``scheme://authority/key`` with the key as the store has it: nothing is percent-encoded. Only
a local name that is no UTF-8, which no table can hold, is written with percent signs, as ``file+percent:///...``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pyarrow import ArrowInvalid, fs

from lakemill_udfs.errors import ConfigError, RowError, RunError

URI = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+:/")
PERCENT = "file+percent://"
AUTHORITY = re.compile(r"[\w.-]*(:\d{1,5})?", re.ASCII)
CONTAINER = re.compile(r"[\w$-]+@[\w.-]+", re.ASCII)  # of abfss, where the part before the @ is no user
HADOOP_SCHEMES = {"s3a": "s3", "s3n": "s3", "abfs": "abfss"}  # as Spark spells them: as Arrow does


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of ``path`` and the path inside it; a path without a scheme is local.

    Raises:
        ConfigError: ``SOURCE_SCHEME`` if no storage has the URI's scheme, or the URI says more than a store's name and
            a key: a user, a password, an endpoint or options.
        OSError: the file system cannot be reached.
    """
    if (local := local_path(path)) is not None:
        return fs.LocalFileSystem(), local
    scheme, authority, key = _parts(path)
    store, root = _store(scheme, authority)
    return store, f"{root}/{key}"


def is_there(path: Path) -> bool:
    """Return whether there is a file or folder here; a name that no file system takes is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def local_path(path: str) -> str | None:
    """Return the absolute local path that ``path`` names, as Python has it; None if it is a store's.

    Raises:
        ConfigError: ``SOURCE_SCHEME`` for ``file://`` with another host.
    """
    if path.startswith(PERCENT):
        return os.fsdecode(unquote_to_bytes(path.removeprefix(PERCENT)))
    if not URI.match(path):
        return str(Path(path).absolute())
    if path.startswith("file:/"):
        rest = path.removeprefix("file:")  # file:/a is Spark's form
        if rest.startswith("//") and not rest.startswith("///"):
            raise _unknown_scheme("file", "a host")
        return str(Path("/" + rest.lstrip("/")).absolute())
    return None


def local_name(path: str) -> str:
    """Return how a table names a local path: as it is, or with percent signs if it is no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return PERCENT + quote_from_bytes(os.fsencode(path))
    return path


def _parts(path: str) -> tuple[str, str, str]:
    """Return scheme, authority and key of a store's URI."""
    scheme, _, rest = path.partition("://")
    authority, _, key = rest.partition("/")
    scheme = HADOOP_SCHEMES.get(scheme.lower(), scheme.lower())
    allowed = CONTAINER if scheme == "abfss" else AUTHORITY
    if not (allowed.fullmatch(authority) or AUTHORITY.fullmatch(authority)):
        raise _unknown_scheme(scheme, "a user, options or an endpoint in the store's name")
    return scheme, authority, key


def _unknown_scheme(scheme: str, extra: str = "") -> ConfigError:
    return ConfigError(
        "SOURCE_SCHEME",
        f"no storage here opens '{scheme}://' paths{' with ' + extra if extra else ''}.",
        hint="use a local path, or s3://, gs://, abfss:// or hdfs://; keys and endpoints come from the environment.",
    )


READ_SECONDS, READ_BYTES = 300.0, 2**23
"""How long one file of a store may take; it is looked at after each so many bytes."""


@lru_cache(maxsize=16)  # making a store's client may ask the network for credentials
def _store(scheme: str, authority: str) -> tuple[fs.FileSystem, str]:
    try:
        store, root = fs.FileSystem.from_uri(f"{scheme}://{authority}/")
    except ArrowInvalid as error:
        raise _unknown_scheme(scheme) from error
    return store, root.rstrip("/")


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """Return a regular file's content; its size is asked before it is read.

    Raises:
        FileNotFoundError: there is no such file.
        RowError: ``FILE_TOO_LARGE``, or ``FILE_UNREADABLE`` for what is no regular file.
        OSError: the storage does not answer or refuses.
    """
    if (local := local_path(path)) is not None:
        return _read_local(local, max_bytes)
    store, inside = filesystem(path)
    with store.open_input_file(inside) as file:
        check_size(left := file.size(), max_bytes)
        parts, end = [], time.monotonic() + READ_SECONDS
        while left > 0 and (part := file.read(min(left, READ_BYTES))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() > end:
                raise RowError("FILE_UNREADABLE", f"the file is not read after {READ_SECONDS:g} s.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_size(length: int, max_bytes: int | None) -> None:
    """Refuse a file by its size, before it is read.

    Raises:
        RowError: ``FILE_TOO_LARGE``.
    """
    if max_bytes is not None and length > max_bytes:
        raise RowError("FILE_TOO_LARGE", f"the file has {length} bytes; limits.max_bytes is {max_bytes}.")


def _read_local(path: str, max_bytes: int | None) -> bytes:
    # Without O_NONBLOCK, opening a FIFO waits for a writer for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise RowError("FILE_UNREADABLE", "the path names a device, a pipe or a socket, and no regular file.")
        check_size(status.st_size, max_bytes)
        parts, left = [], status.st_size  # no more, however much a file of /proc or one that grows would give
        while left > 0 and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


OUTAGE_ROWS = 2
"""So many rows of a batch that cannot be read, and none that can, make one ask whether the storage answers at all."""


@dataclass(frozen=True)
class RowFiles:
    """Which files a table's rows may name by their path, and how they are read.

    Args:
        roots: Folders, files or URIs; what lies below one may be read. None allows every regular local file and every
            store, for data that the caller gives with the caller's own rights.
        max_bytes: Larger files are not read.
    """

    roots: tuple[str, ...] | None = ()
    max_bytes: int = 512 * 2**20

    def read(self, path: str) -> bytes:
        """Return the file that a row names.

        Raises:
            RowError: ``PATH_NOT_ALLOWED``, ``FILE_PATH``, ``FILE_NOT_FOUND``, ``FILE_TOO_LARGE`` or
                ``FILE_UNREADABLE``. A ``FILE_UNREADABLE`` whose cause is an ``OSError`` is one of the storage.
        """
        try:
            allowed = self._allowed(path)
            return read_bytes(allowed, self.max_bytes)
        except RowError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RowError("FILE_NOT_FOUND", "the file that the row refers to is gone.") from error
        except (ConfigError, IsADirectoryError, ValueError) as error:
            raise RowError("FILE_PATH", "the path that the row refers to is none of a file.") from error
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno else type(error).__name__
            raise RowError("FILE_UNREADABLE", f"the file that the row refers to cannot be read ({cause}).") from error

    def check_outage(self, read: Sequence[tuple[str | None, RowError | None]]) -> None:
        """Stop where no file of a batch can be read because their storage is out of order.

        That is so where several were to be read, none was, and their storage does not even say what is in the folder.

        Args:
            read: Path and error of each row of a batch whose file was to be read.

        Raises:
            RunError: ``STORAGE_READ``.
        """
        failed = [path for path, error in read if path and error is not None and _is_storage(error)]
        if len(failed) < max(OUTAGE_ROWS, len(read)) or self.answers(failed[0]):
            return
        raise RunError(
            "STORAGE_READ",
            f"the storage of the images does not answer: {len(failed)} files of a batch cannot be read, the first is "
            f"{failed[0][:200]!r}.",
            hint="run again once it does; nothing of this batch was committed.",
        )

    @staticmethod
    def answers(path: str) -> bool:
        """Return whether the storage of a path tells anything of the folder that it lies in."""
        try:
            store, inside = filesystem(path)
            store.get_file_info(inside.rpartition("/")[0] or "/")
        except OSError:
            return False
        return True

    def _allowed(self, path: str) -> str:
        """Return the path to open: a local one without links, so that none leads out of its root."""
        local = local_path(path)
        name = path if local is None else local_name(os.path.realpath(local))
        if self.roots is None or any(_is_below(name, root) for root in self.roots):
            return name
        raise RowError(
            "PATH_NOT_ALLOWED",
            "the row's path is not below a folder that the job may read.",
            hint="name the folders or URIs: limits: {allowed_roots: [...]}",
        )


def _is_storage(error: RowError) -> bool:
    """Return whether a file could not be read because of what its storage said, other than that there is none."""
    return error.code == "FILE_UNREADABLE" and isinstance(error.__cause__, OSError)


NO_FILES = RowFiles()
"""No row names a file."""


def _is_below(name: str, root: str) -> bool:
    local_root, local = local_path(root), local_path(name)
    if local_root is not None or local is not None:
        return (
            local_root is not None
            and local is not None
            and PurePosixPath(local).is_relative_to(os.path.realpath(local_root))
        )
    *store, key = _parts(name)
    *root_store, root_key = _parts(root)
    below = root_key.rstrip("/")
    if store != root_store or ".." in key.split("/"):
        return False
    return not below or key == below or key.startswith(below + "/")
