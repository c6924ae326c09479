"""Columns of a source that were dropped or renamed since it was read.

Where Delta maps columns, files are read by names that never change, so what a job does not use changes nothing. One
that it uses and that was dropped and made anew, or whose name another column has now, is another column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lakemill.engines.delta_log import Action, DeltaLog
from lakemill.engines.positions import Position
from lakemill.predict.run import Run
from lakemill_udfs.errors import RunError

MAPPING = "delta.columnMapping.mode"


def check_columns(run: Run, done: Position | None) -> None:
    """Refuse a source of which a column that the job uses is another one than the job has read.

    Args:
        run: What it needs.
        done: Up to where the source was read; None if nothing was.

    Raises:
        RunError: ``SOURCE_CHANGED``.
    """
    source = run.source.snapshot
    if done is None or (source.properties.get(MAPPING) or "none") == "none":
        return
    log = DeltaLog(run.source.location)
    for version in range(done.version, source.version + 1):
        for name in _other_columns(log.actions(version) or []):
            if _is_used(run, name):
                raise RunError(
                    "SOURCE_CHANGED",
                    f"version {version} of the source '{source.table}' dropped or renamed columns: '{name}' is another "
                    "column now than the one that this job has read.",
                    hint="mode: full scores the table as it is now, then this mode goes on.",
                )


def _other_columns(said: list[Action]) -> Iterator[str]:
    """Yield the names that stand for no column, or for another one, after a commit."""
    for info in (action["commitInfo"] for action in said if "commitInfo" in action):
        parameters = info.get("operationParameters") or {}
        if info.get("operation") == "DROP COLUMNS":
            yield from json.loads(parameters.get("columns") or "[]")
        elif info.get("operation") == "RENAME COLUMN":
            yield parameters.get("newColumnPath") or ""


def _is_used(run: Run, name: str) -> bool:
    """Return whether a job reads a column; what a predicate reads is told by its words."""
    bare = name.replace("`", "")
    top = bare.split(".")[0]
    used = {*run.plan.source_columns, *run.source.key, *run.config.source.carried, *run.config.engine.group_by}
    words = set(re.findall(r"\w+", run.config.source.where or ""))
    return bool({bare, top} & used) or top in words
