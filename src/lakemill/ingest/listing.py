"""The files that a source holds, listed on the driver: about a kilobyte of its memory for each."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl
from pyarrow import fs

from lakemill.config.ingest import FileSource, Pattern
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import filesystem, is_there, local_name, local_path

FILES: dict[str, pl.DataType] = {
    "path": pl.String(),
    "length": pl.Int64(),
    "modification_time": pl.Datetime("us", "UTC"),
    "label": pl.String(),
}
"""One row a file. ``path`` is as ``files`` names it; ``modification_time`` is UTC in microseconds."""

KEY = ["path", "modification_time", "length"]
"""What tells one state of a file from another."""


@dataclass(frozen=True)
class Found:
    """One listed file.

    Args:
        name: As tables name it.
        below: Its path below the source; None for a folder that cannot be opened.
        length: In bytes.
        modified: In microseconds since 1970, UTC.
    """

    name: str
    below: PurePosixPath | None
    length: int
    modified: int | None

    @classmethod
    def of(cls, path: str, below: PurePosixPath | None, status: os.stat_result) -> Found:
        """Return what a local file is."""
        return cls(local_name(path), below, status.st_size, _microseconds(status.st_mtime_ns))


def list_files(source: FileSource) -> pl.DataFrame:
    """Return the files of a source as ``FILES``, each once, in the order of their paths.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND`` if a path is not there, ``SOURCE_SCHEME`` if no storage has its scheme.
    """
    label_of = _labeller(source.label)
    rows = [
        (found.name, found.length, found.modified, label_of(found.name))
        for path in source.paths
        for found in _walk(path, recursive=source.recursive)
        if _wanted(found.below, source.globs)
    ]
    return pl.DataFrame(rows, FILES, orient="row").unique("path").sort("path")


def _walk(path: str, *, recursive: bool) -> Iterator[Found]:
    """Yield every file of a source.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND`` or ``SOURCE_SCHEME``.
    """
    if (local := local_path(path)) is not None:
        yield from _walk_local(path, local, recursive=recursive)
        return
    store, inside = filesystem(path.rstrip("/"))
    found = store.get_file_info(inside)
    if found.type == fs.FileType.NotFound:
        raise _not_found(path)
    if found.type == fs.FileType.File:
        yield Found(path.rstrip("/"), PurePosixPath(found.base_name), found.size, _microseconds(found.mtime_ns))
        return
    for info in store.get_file_info(fs.FileSelector(inside, recursive=recursive)):
        if info.type == fs.FileType.File:
            below = info.path[len(inside) :].lstrip("/")
            yield Found(f"{path.rstrip('/')}/{below}", PurePosixPath(below), info.size, _microseconds(info.mtime_ns))


def _walk_local(path: str, local: str, *, recursive: bool) -> Iterator[Found]:
    """Yield the regular files of a local source; each folder once, however many links lead to it or back up.

    Folders are gone into before links to folders, so that a file is found under its own name where it has one below the
    source. A folder that cannot be opened comes as a file, which then cannot be read: ingest says so.
    """
    top = Path(local)
    if not top.exists():
        raise _not_found(path)
    if not top.is_dir():
        yield Found.of(local, PurePosixPath(top.name), top.stat())
        return
    seen: set[tuple[int, int]] = set()
    folders, links = [local], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError:
            yield Found.of(folder, None, status)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                info, is_folder = entry.stat(), entry.is_dir()
            except OSError:  # a link to nothing, or a file that went meanwhile
                continue
            if is_folder and recursive:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif stat.S_ISREG(info.st_mode):
                yield Found.of(entry.path, PurePosixPath(entry.path).relative_to(local), info)


def check_local(source: FileSource) -> None:
    """Refuse a source that is not there, before an engine starts; only this machine's disk is looked at.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND``.
    """
    for path in source.paths:
        if (local := local_path(path)) is not None and not is_there(Path(local)):
            raise _not_found(path)


def _not_found(path: str) -> ConfigError:
    return ConfigError(
        "SOURCE_NOT_FOUND",
        f"there is no file or folder '{path}'.",
        hint="relative paths start at the working folder; stores are s3://, gs://, abfss:// or hdfs://.",
    )


def _microseconds(nanoseconds: int | None) -> int | None:
    return nanoseconds and nanoseconds // 1000


def _wanted(below: PurePosixPath | None, globs: list[str]) -> bool:
    if below is None:
        return True
    if any(part.startswith(".") for part in below.parts):
        return False
    return not globs or any(fnmatch.fnmatchcase(str(below) if "/" in glob else below.name, glob) for glob in globs)


def _labeller(label: str | Pattern | None) -> Callable[[str], str | None]:
    if label is None:
        return lambda _: None
    if not isinstance(label, Pattern):
        return lambda name: PurePosixPath(name).parent.name or None
    pattern = re.compile(label.pattern)
    group = "label" if "label" in pattern.groupindex else 1
    return lambda name: match[group] if (match := pattern.search(name)) else None


def index_labels(files: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Add ``label_index`` (int32): the known index of a label, and the next free ones, in order, for new labels.

    Args:
        files: Has ``label``; a null label has a null index.
        known: ``label`` and ``label_index`` of what is in the table already.
    """
    mapping = known.select("label", "label_index").drop_nulls().unique("label").sort("label")
    new = files.select("label").drop_nulls().unique().join(mapping, on="label", how="anti").sort("label")
    first = mapping["label_index"].max()
    start = 0 if first is None else int(first) + 1  # type: ignore[arg-type]  # an int32 column's largest value
    indexed = new.with_columns(label_index=pl.int_range(start, start + pl.len(), dtype=pl.Int32))
    return files.join(pl.concat([mapping, indexed]), on="label", how="left", maintain_order="left")
