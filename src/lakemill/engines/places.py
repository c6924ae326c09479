"""Where a job's tables and folders are, and that none is another one or lies within it.

A table has many spellings: relative, with a slash at its end, through a link, as ``file:`` URI, by its catalog name.
What counts is the place that it names.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote

from lakemill.engines import table_names
from lakemill.engines.engine import Engine
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import HADOOP_SCHEMES, URI

LONGEST_PART_BYTES = 255


@dataclass(frozen=True)
class Place:
    """A table or a folder of a job.

    Args:
        role: The configuration's key that names it, or what is made beside it, for messages.
        name: As it is written there.
        is_source: Whether it is only read. Two sources may be the same; nothing that is written may be a source.
        is_file: Whether it is one file and no folder.
    """

    role: str
    name: str
    is_source: bool = False
    is_file: bool = False


def check_apart(places: Sequence[Place], locate: Callable[[str], str | None] | None = None) -> None:
    """Refuse places of which one is another or lies within it, or is no folder; nothing of their content is looked at.

    Args:
        places: Of one job.
        locate: Returns where a table of the catalog is, None if it is not there yet; without it, tables of the catalog
            are left out.

    Raises:
        ConfigError: ``TABLES_OVERLAP``, ``PATH_INVALID``.
    """
    for place in places:
        check_name(place.role, place.name)
    known = [(place, resolved) for place in places if (resolved := _resolved(place.name, locate)) is not None]
    for place, at in known:
        _check_folder(place, at)
    for (one, one_at), (other, other_at) in combinations(known, 2):
        if one.is_source and other.is_source:
            continue
        if is_within(one_at, other_at) or is_within(other_at, one_at):
            how = "is" if one_at == other_at else "lies within" if is_within(one_at, other_at) else "holds"
            raise ConfigError(
                "TABLES_OVERLAP",
                f"{one.role} ('{one.name}') {how} {other.role} ('{other.name}'): a run would write into what is not "
                "its own.",
                hint="give each table and folder of a job a place of its own, beside the others.",
            )


def check_name(role: str, name: str) -> None:
    """Refuse a table or folder whose name no file system takes.

    Raises:
        ConfigError: ``PATH_INVALID``.
    """
    longest = max((len(part.encode(errors="surrogateescape")) for part in name.split("/")), default=0)
    if longest > LONGEST_PART_BYTES or "\0" in name:
        what = "holds a zero byte" if "\0" in name else f"has a part of {longest} bytes"
        raise ConfigError(
            "PATH_INVALID",
            f"{role} ('{name[:60]}...') {what}; file systems take names of {LONGEST_PART_BYTES} bytes.",
            hint="give it a shorter name; those of its checkpoint, lock and side tables are made from it.",
        )


def _check_folder(place: Place, at: str) -> None:
    """Refuse a file of somebody's in the place of a table or folder that is written.

    Raises:
        ConfigError: ``PATH_INVALID``.
    """
    if not place.is_source and not place.is_file and at.startswith("/") and Path(at).is_file():
        raise ConfigError(
            "PATH_INVALID",
            f"{place.role} ('{place.name}') is a file; a table, and a checkpoint, is a folder.",
            hint="name a folder that is not there yet; it is made by the first run.",
        )


def places_of(engine: Engine) -> Callable[[str], str | None]:
    """Return a function that says where a table of the engine's catalog is, None if there is no Delta table."""

    def locate(table: str) -> str | None:
        snapshot = engine.snapshot(table)
        return None if snapshot is None or snapshot.kind != "delta" else snapshot.location

    return locate


def is_within(inner: str, outer: str) -> bool:
    """Return whether ``inner`` is ``outer`` or lies within it; both are as ``canonical`` returns them."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def canonical(location: str) -> str:
    """Return a path or URI in the one form that all its spellings have; local links are followed.

    Args:
        location: Absolute or relative path, or URI.
    """
    if location[:5].lower() == "file:":
        rest = location[5:]
        local = "/" + rest.lstrip("/").removeprefix("localhost/")
        # Spark writes a path's odd letters as they are or percent-encoded, depending on who is asked.
        return str((Path(local) if Path(local).exists() else Path(unquote(local))).resolve())
    if not URI.match(location):
        return str(Path(location).resolve())
    scheme, _, rest = location.partition(":")
    authority, _, key = rest.lstrip("/").partition("/")
    path = posixpath.normpath("/" + key).lstrip("/")
    return f"{HADOOP_SCHEMES.get(scheme.lower(), scheme.lower())}://{authority.lower()}/{path}".rstrip("/")


def _resolved(name: str, locate: Callable[[str], str | None] | None) -> str | None:
    if table_names.is_path(name):
        return canonical(name)
    if locate is None:
        return None
    location = locate(name)
    # A table that is not there yet has no place, but two of one name would be one; catalogs ignore letter case.
    return canonical(location) if location is not None else f"catalog:{name.lower()}"
