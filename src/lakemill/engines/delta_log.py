"""The one reader of a Delta table's log: its commits, file by file, and the transactions in its checkpoints.

It reads through Arrow's file systems, without an engine, so that both engines mean the same by a log, and a stream can
ask after each batch how far behind it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow.parquet as pq
from pyarrow import fs

from lakemill_udfs.files import filesystem

FOLDER = "_delta_log"
LONGEST_PLAIN = len(f"{0:020d}.checkpoint.{0:010d}.{0:010d}.parquet")
"""Of a checkpoint's name; those that name their files in others have a UUID."""


class FileEntry(TypedDict, total=False):
    """A file that came, went, or holds what a commit changed."""

    path: str
    size: int
    stats: str | None
    dataChange: bool
    modificationTime: int
    partitionValues: dict[str, str | None] | None
    deletionVector: Mapping[str, object] | None


class TransactionEntry(TypedDict):
    """An application's transaction."""

    appId: str
    version: int


class MetadataEntry(TypedDict):
    """What a table is."""

    id: str
    partitionColumns: list[str]
    configuration: Mapping[str, str]


class CommitInfo(TypedDict, total=False):
    """When a commit was made, in milliseconds since 1970, and by what."""

    timestamp: int
    inCommitTimestamp: int
    operation: str
    operationParameters: Mapping[str, str | None] | None


class Action(TypedDict, total=False):
    """A line of a commit, which has one of these; those that nobody asks for are left out."""

    add: FileEntry
    remove: FileEntry
    cdc: FileEntry
    metaData: MetadataEntry
    txn: TransactionEntry
    commitInfo: CommitInfo


@dataclass(frozen=True)
class DeltaCommit:
    """One commit of a table.

    Args:
        version: The table's version that it made.
        time_seconds: When, in seconds since 1970 (UTC), by the clock of the machine that made it.
        rows: Rows that it added; 0 for a commit that only rearranges, None if the log does not say, or it took rows
            away or changed them.
        files: How many new files it has; a commit that only rearranges has none.
        bytes: Their size.
    """

    version: int
    time_seconds: float
    rows: int | None
    files: int
    bytes: int


@dataclass(frozen=True)
class DeltaLog:
    """The log of a Delta table. Each method raises ``OSError`` where the storage does not answer or refuses.

    Args:
        location: The table's absolute path or URI.
    """

    location: str

    def is_there(self) -> bool:
        """Return whether there is a log, which makes a folder a Delta table."""
        store, folder = self._folder()
        return bool(store.get_file_info(folder).type == fs.FileType.Directory)

    def newest(self) -> int | None:
        """Return the newest version; None if there is no log."""
        return max((_version(file) for file in self._files() if _is_commit(file) or _is_checkpoint(file)), default=None)

    def metadata(self) -> MetadataEntry | None:
        """Return what the table is now; None if the log does not say it, or in a way of its own."""
        files = self._files()
        since = max((_version(file) for file in files if _is_checkpoint(file)), default=-1)
        later = sorted((_version(file) for file in files if _is_commit(file) and _version(file) > since), reverse=True)
        for version in later:
            said = next((action["metaData"] for action in self.actions(version) or () if "metaData" in action), None)
            if said is not None:
                return said
        entry: MetadataEntry | None = next(self._checkpointed("metaData", since), None)
        # A map is a list of pairs in Arrow.
        return entry and {**entry, "configuration": dict(entry["configuration"] or {})}

    def size(self, version: int) -> tuple[int, int] | None:
        """Return how many files the table has at a version, and their bytes; None if the log does not say it here."""
        files = self._files()
        since = max(
            (_version(file) for file in files if _is_checkpoint(file) and _version(file) <= version), default=-1
        )
        if any(
            _version(file) == since and len(file.base_name) > LONGEST_PLAIN for file in files if _is_checkpoint(file)
        ):
            return None  # such a checkpoint names its files in other ones
        sizes = {entry["path"]: int(entry["size"]) for entry in self._checkpointed("add", since)}
        for number in range(since + 1, version + 1):
            actions = self.actions(number)
            if actions is None:
                return None
            for action in actions:  # with deletion vectors a commit takes a path away and adds it again
                if "remove" in action:
                    sizes.pop(action["remove"]["path"], None)
            sizes |= {action["add"]["path"]: int(action["add"]["size"]) for action in actions if "add" in action}
        return len(sizes), sum(sizes.values())

    def commit_files(self) -> list[fs.FileInfo]:
        """Return the commits' files that were not cleaned up."""
        return [file for file in self._files() if _is_commit(file)]

    def oldest_commit(self) -> int | None:
        """Return the oldest version whose commit was not cleaned up; None if there is no log."""
        return min(map(_version, self.commit_files()), default=None)

    def content(self, version: int) -> bytes | None:
        """Return a commit's file as it is; None if there is none yet, or it was cleaned up."""
        store, folder = self._folder()
        try:
            with store.open_input_stream(f"{folder}/{version:020d}.json") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def actions(self, version: int) -> list[Action] | None:
        """Return what one commit says, action by action; None if there is none yet, or its file was cleaned up."""
        content = self.content(version)
        return None if content is None else actions_in(content)

    def commit(self, version: int) -> DeltaCommit | None:
        """Return what one commit comes to; None if there is none yet, or its file was cleaned up."""
        said = self.actions(version)
        if said is None:
            return None
        info = next((action["commitInfo"] for action in said if "commitInfo" in action), CommitInfo())
        added = [action["add"] for action in said if action.get("add", {}).get("dataChange")]
        counts = [rows_in(file) for file in added]
        if any(action.get("remove", {}).get("dataChange") for action in said):
            counts.append(None)
        rows = None if None in counts else sum(count for count in counts if count is not None)
        seconds = info.get("inCommitTimestamp", info.get("timestamp", 0)) / 1000
        return DeltaCommit(version, seconds, rows, len(added), sum(int(file["size"]) for file in added))

    def after(self, version: int) -> Iterator[DeltaCommit]:
        """Yield the commits after ``version`` in order; the time it takes grows with their number alone."""
        while (commit := self.commit(version := version + 1)) is not None:
            yield commit

    def checkpointed_transactions(self, version: int) -> Iterator[TransactionEntry]:
        """Yield the applications' transactions in the newest checkpoint up to a version."""
        return (entry for entry in self._checkpointed("txn", version) if entry["appId"] is not None)

    def _checkpointed(self, action: str, version: int) -> Iterator[Any]:
        """Yield what the newest checkpoint up to a version has of one kind of action."""
        named = [file for file in self._files() if _is_checkpoint(file) and _version(file) <= version]
        newest = max(map(_version, named), default=None)
        store, _ = self._folder()
        for file in named:
            if _version(file) == newest:
                yield from _entries(store, file.path, action)

    def _folder(self) -> tuple[fs.FileSystem, str]:
        return filesystem(f"{self.location}/{FOLDER}")

    def _files(self) -> list[fs.FileInfo]:
        store, folder = self._folder()
        return list(store.get_file_info(fs.FileSelector(folder, allow_not_found=True)))


def actions_in(content: bytes) -> list[Action]:
    """Return the actions of a commit's file."""
    return [json.loads(line) for line in content.splitlines() if line]


def rows_in(file: FileEntry) -> int | None:
    """Return how many rows the log says that a file has; None if it does not say."""
    rows = json.loads(file.get("stats") or "{}").get("numRecords")
    return None if rows is None else int(rows)


def _version(file: fs.FileInfo) -> int:
    return int(file.base_name[:20])


def _is_commit(file: fs.FileInfo) -> bool:
    return bool(file.base_name.endswith(".json") and file.base_name[:-5].isdigit())


def _is_checkpoint(file: fs.FileInfo) -> bool:
    return ".checkpoint" in file.base_name and file.base_name[:20].isdigit()


def _entries(store: fs.FileSystem, path: str, action: str) -> list[Any]:
    if path.endswith(".json"):
        with store.open_input_stream(path) as stream:
            said: list[Any] = actions_in(bytes(stream.read()))
            return [one[action] for one in said if action in one]
    if not path.endswith(".parquet"):
        return []
    with pq.ParquetFile(path, filesystem=store) as file:
        if action not in file.schema_arrow.names:
            return []
        rows: list[Any] = file.read(columns=[action])[action].drop_null().to_pylist()  # pyarrow is untyped
        return rows
