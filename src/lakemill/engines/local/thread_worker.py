"""A worker in a thread of this process."""

from __future__ import annotations

import queue
import threading
from typing import Any

from lakemill_udfs.failures import worker_failure

LAST_WAIT_SECONDS = 5.0
"""For threads to end the batch they are at, once nobody waits for it."""


class _Stopped(Exception):  # noqa: N818 -- no error: the thread is told to end
    pass


class ThreadWorker:
    """Does one item at a time in a thread of this process.

    Args:
        events: Where what it says is put, as ``(event, worker, payload)``.
    """

    def __init__(self, events: queue.SimpleQueue[Any]) -> None:
        self._events = events
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="lakemill-worker")
        self._thread.start()

    def _run(self) -> None:
        while (task := self._inbox.get()) is not None:
            work, item = task
            try:
                self._events.put(("done", self, work(item, self._tell)))
            except _Stopped:
                return
            except MemoryError:
                self._events.put(("died", self, "ran out of memory"))
            except Exception as error:  # whatever it is, the caller's thread raises it
                self._events.put(("failed", self, worker_failure(error)))

    def _tell(self, rows: int) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self._events.put(("rows", self, rows))

    def give(self, work: Any, item: Any) -> None:
        """Hand it an item."""
        self._inbox.put((work, item))

    def stop(self) -> None:
        """Let it end with its next batch."""
        self._stopped.set()
        self._inbox.put(None)

    def join(self) -> None:
        """Wait a while until it has ended."""
        self._thread.join(LAST_WAIT_SECONDS)
