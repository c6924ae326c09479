"""What is new in a Delta source, slice by slice, with progress as Structured Streaming keeps it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from lakemill.engines.engine import Following, Slice, Watch
from lakemill.engines.local.changes import Changes, NewFiles
from lakemill.engines.local.rows import LocalRows, Room
from lakemill.engines.local.tables import Snapshot, open_table
from lakemill_udfs.errors import RunError

POLL_SECONDS = 1.0


def follow(room: Room, following: Following, on_slice: Callable[[Slice], None], watch: Watch) -> None:
    """Hand out what is new; see ``Engine.follow``.

    A slice that an earlier run began and did not end comes first, with the same rows. Its end is written down before
    anything of it is scored, that it is done after it is committed, as Structured Streaming does.
    """
    checkpoint = following.checkpoint
    if checkpoint.query_id() is None:
        checkpoint.start(str(uuid.uuid4()))
    snapshot = _opened(following)
    while True:
        began = time.monotonic()
        _all_new(room, following, snapshot, on_slice, watch)
        if following.every_seconds is None or watch.stop.is_set():
            break
        while not watch.stop.wait(min(POLL_SECONDS, max(0.0, began + following.every_seconds - time.monotonic()))):
            watch.between()
            if time.monotonic() >= began + following.every_seconds:
                break
        snapshot.table.update_incremental()
        snapshot = Snapshot(snapshot.location, snapshot.table)
    while not watch.stop.is_set() and watch.drain():
        pass


def _all_new(
    room: Room, following: Following, snapshot: Snapshot, on_slice: Callable[[Slice], None], watch: Watch
) -> None:
    checkpoint, changes = following.checkpoint, Changes(snapshot, following.changes)
    begun, done = checkpoint.begun(), checkpoint.last_batch()
    start = None if done is None else checkpoint.position(done)
    if begun is not None and begun != done:
        end = checkpoint.position(begun)
        if end is None:
            raise RunError("CHECKPOINT_DAMAGED", f"'{checkpoint.location}' has no offsets of batch {begun}.")
        on_slice(_slice(room, following, changes, begun, changes.between(start, end)))
        checkpoint.finish(begun)
        start, done = end, begun
    batch_id = -1 if done is None else done
    for new in changes.after(start, following.max_bytes):
        if watch.stop.is_set():
            return
        batch_id += 1
        checkpoint.begin(batch_id, new.end, snapshot.id)
        on_slice(_slice(room, following, changes, batch_id, new))
        checkpoint.finish(batch_id)


def _slice(room: Room, following: Following, changes: Changes, batch_id: int, new: NewFiles) -> Slice:
    rows = LocalRows(room, new.files, changes.schema)
    if following.where is not None and not following.changes:
        rows = rows.where(following.where)
    return Slice(batch_id, rows, new.version, new.is_snapshot)


def _opened(following: Following) -> Snapshot:
    snapshot = open_table(following.source.location)
    if snapshot is None:
        raise RunError("SOURCE_CHANGED", f"the source '{following.source.table}' is gone.", hint="make it again.")
    return snapshot
