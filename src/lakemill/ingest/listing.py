"""The files that a source holds, listed on the driver: about a kilobyte of its memory for each."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import polars as pl
from pyarrow import fs

from lakemill.config.ingest import FileSource, Pattern
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import filesystem

FILES: dict[str, pl.DataType] = {
    "path": pl.String(),
    "length": pl.Int64(),
    "modification_time": pl.Datetime("us", "UTC"),
    "label": pl.String(),
}
"""One row a file. ``path`` is absolute, or a URL; ``modification_time`` is UTC in microseconds."""

KEY = ["path", "modification_time", "length"]
"""What tells one state of a file from another."""


def list_files(source: FileSource) -> pl.DataFrame:
    """Return the files of a source as ``FILES``, each once, in the order of their paths.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND`` if a path is not there, ``SOURCE_SCHEME`` if no storage has its scheme.
    """
    label_of = _labeller(source.label)
    rows = [
        (name, info.size, info.mtime_ns and info.mtime_ns // 1000, label_of(name))
        for path in source.paths
        for name, below, info in _walk(path, recursive=source.recursive)
        if _wanted(below, source.globs)
    ]
    return pl.DataFrame(rows, FILES, orient="row").unique("path").sort("path")


def _walk(path: str, *, recursive: bool) -> Iterator[tuple[str, PurePosixPath, fs.FileInfo]]:
    """Yield each file's name, its path below the source, and what the store says of it."""
    store, inside = filesystem(path.rstrip("/") or "/")
    found = _found(path)
    named = inside if isinstance(store, fs.LocalFileSystem) else path.rstrip("/")
    if found.type == fs.FileType.File:
        yield named, PurePosixPath(found.base_name), found
        return
    for info in store.get_file_info(fs.FileSelector(inside, recursive=recursive)):
        if info.type == fs.FileType.File:
            below = info.path[len(inside) :].lstrip("/")
            yield f"{named.rstrip('/')}/{below}", PurePosixPath(below), info


def check_local(source: FileSource) -> None:
    """Refuse a source that is not there, before an engine starts; only this machine's disk is looked at.

    Raises:
        ConfigError: ``SOURCE_NOT_FOUND``.
    """
    for path in source.paths:
        if "://" not in path:
            _found(path)


def _found(path: str) -> fs.FileInfo:
    store, inside = filesystem(path.rstrip("/") or "/")
    found = store.get_file_info(inside)
    if found.type == fs.FileType.NotFound:
        raise ConfigError(
            "SOURCE_NOT_FOUND",
            f"there is no file or folder '{path}'.",
            hint="relative paths start at the working folder; stores are s3://, gs://, abfss:// or hdfs://.",
        )
    return found


def _wanted(below: PurePosixPath, globs: list[str]) -> bool:
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
