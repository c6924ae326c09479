"""Marks of a Delta table's commits: whether it is the history that somebody saw, and what came after.

They come from the log's files, without an engine, so that both engines mean the same by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from lakemill.engines.delta_log import Action, DeltaLog, actions_in

JOBS = "lakemill/"
"""What the applications of Lakemill's jobs begin with."""


@dataclass(frozen=True)
class Mark:
    """One commit of a table, told from every other one, of another table too.

    Args:
        version: The table's version that it made.
        sha256: Of its file in the log.
    """

    version: int
    sha256: str

    def is_in(self, location: str) -> bool:
        """Return whether the table's log has this very commit."""
        return mark_of(location, self.version) == self


@dataclass(frozen=True)
class After:
    """What a commit after a mark did.

    Args:
        mark: Of it.
        has_removed: Whether rows went or changed; not by a commit that only rearranges files.
        transaction: The number that an application's commit has; None for somebody else's.
        is_other_job: Whether it is another job's of Lakemill, which changes only rows of its own.
    """

    mark: Mark
    has_removed: bool
    transaction: int | None
    is_other_job: bool


def mark_of(location: str, version: int) -> Mark | None:
    """Return the mark of a version; None if there is no such commit, or its file was cleaned up.

    Args:
        location: The table's absolute path or URI.
        version: Of the table.

    Raises:
        OSError: the storage does not answer or refuses.
    """
    content = DeltaLog(location).content(version)
    return None if content is None else Mark(version, hashlib.sha256(content).hexdigest())


def newest_mark(location: str, version: int) -> Mark | None:
    """Return the mark of the newest commit, which is ``version`` or a later one; None if the log has no file of it."""
    newest = mark_of(location, version)
    while (following := mark_of(location, version + 1)) is not None:
        newest, version = following, version + 1
    return newest


def commits_after(location: str, mark: Mark, app: str) -> Iterator[After] | None:
    """Return what the commits after a mark did, oldest first; None if the table's history is another one by now.

    Args:
        location: The table's absolute path or URI.
        mark: Of a commit that was its newest.
        app: The application whose transactions are looked for.
    """
    return commits_from(location, mark.version + 1, app) if mark.is_in(location) else None


def commits_from(location: str, version: int, app: str) -> Iterator[After]:
    """Yield what the commits from a version on did, as far as the log has them."""
    log = DeltaLog(location)
    while (content := log.content(version)) is not None:
        actions = actions_in(content)
        removed = any(action.get("remove", {}).get("dataChange") for action in actions)
        mark = Mark(version, hashlib.sha256(content).hexdigest())
        apps = {action["txn"]["appId"] for action in actions if "txn" in action} - {app}
        yield After(mark, removed, _transaction(actions, app), any(one.startswith(JOBS) for one in apps))
        version += 1


def last_transaction(location: str, version: int, app: str) -> int:
    """Return the number of an application's last transaction up to a version; 0 if it made none.

    Args:
        location: The table's absolute path or URI.
        version: Of the table.
        app: The application.

    Raises:
        OSError: the storage does not answer or refuses.
    """
    log, before = DeltaLog(location), version
    while before >= 0 and (actions := log.actions(before)) is not None:
        number = _transaction(actions, app)
        if number is not None:
            return number
        before -= 1
    if before < 0:
        return 0
    return max((one["version"] for one in log.checkpointed_transactions(version) if one["appId"] == app), default=0)


def _transaction(actions: list[Action], app: str) -> int | None:
    return next((int(one["txn"]["version"]) for one in actions if "txn" in one and one["txn"]["appId"] == app), None)
