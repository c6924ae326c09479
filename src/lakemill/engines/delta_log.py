"""A Delta table's log, read file by file: when each commit was made and how many rows it added.

It is read through Arrow's file systems, without Spark, so that a stream can ask after each batch how far behind it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lakemill_udfs.files import filesystem


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
    """The log of a Delta table.

    Args:
        location: The table's absolute path or URI.
    """

    location: str

    def after(self, version: int) -> Iterator[DeltaCommit]:
        """Yield the commits after ``version`` in order; the time it takes grows with their number alone.

        Raises:
            OSError: the storage does not answer or refuses.
        """
        while (commit := self.commit(version := version + 1)) is not None:
            yield commit

    def ends_with(self, version: int, before: float) -> bool:
        """Return whether ``version`` is the newest one for sure; it looks at two files.

        Args:
            version: Of the table.
            before: Seconds since 1970 by the storage's clock; a commit file that is newer may be of another table that
                was put in this one's place.
        """
        store, folder = filesystem(self.location)
        names = [f"{folder}/_delta_log/{number:020d}.json" for number in (version, version + 1)]
        this, following = store.get_file_info(names)
        # With this file there, the next one was not cleaned up: clean-up takes the oldest first.
        return bool(this.is_file and this.mtime_ns / 1e9 <= before and not following.is_file)

    def commit(self, version: int) -> DeltaCommit | None:
        """Return one commit; None if there is none yet, or its file was cleaned up.

        Raises:
            OSError: the storage does not answer or refuses.
        """
        said = actions(self.location, version)
        if said is None:
            return None
        info: dict[str, Any] = next((action["commitInfo"] for action in said if "commitInfo" in action), {})
        added = [action["add"] for action in said if action.get("add", {}).get("dataChange")]
        counts = [_rows(file) for file in added]
        if any(action.get("remove", {}).get("dataChange") for action in said):
            counts.append(None)
        rows = None if None in counts else sum(count for count in counts if count is not None)
        seconds = info.get("inCommitTimestamp", info.get("timestamp", 0)) / 1000
        return DeltaCommit(version, seconds, rows, len(added), sum(int(file["size"]) for file in added))


def _rows(added: dict[str, Any]) -> int | None:
    rows = json.loads(added.get("stats") or "{}").get("numRecords")
    return None if rows is None else int(rows)


def actions(location: str, version: int) -> list[dict[str, Any]] | None:
    """Return what one commit of a table says, action by action; None if there is none, or its file was cleaned up.

    Args:
        location: The table's absolute path or URI.
        version: That the commit made.

    Raises:
        OSError: the storage does not answer or refuses.
    """
    store, folder = filesystem(location)
    try:
        with store.open_input_stream(f"{folder}/_delta_log/{version:020d}.json") as stream:
            return [json.loads(line) for line in bytes(stream.read()).splitlines()]
    except FileNotFoundError:
        return None
