"""Stopping long jobs gracefully: a signal is noted, and the job ends after what it is doing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(said: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM or SIGINT (Ctrl-C) sets; a second signal does what it did before.

    Outside the main thread, where Python allows no signal handlers, the event is there but no signal sets it.

    Args:
        said: Called when a signal came.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()
        said()

    for number in earlier:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
