"""How far long work is, in a line every few seconds: rows, rows a second, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_SECONDS = 5.0


class Pace:
    """Counts rows that are done, and says now and then how far that is. An engine calls it with each piece's rows.

    Args:
        tell: Gets the lines; none in work that ends within ``every_seconds``.
        total: Rows there are to do; None if that is not known.
        every_seconds: Between two lines.
        clock: Seconds of any clock that does not go back.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        total: int | None = None,
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._total, self._every, self._clock = tell, total, every_seconds, clock
        self._began = self._said = clock()
        self._rows = 0
        self._lock = threading.Lock()  # several workers' threads count at once

    def __call__(self, rows: int) -> None:
        """Count rows that are done."""
        with self._lock:
            self._rows += rows
            now = self._clock()
            if now - self._said < self._every:
                return
            self._said = now
            line = self._line(now - self._began)
        self._tell(line)

    def _line(self, seconds: float) -> str:
        rate = self._rows / seconds
        if self._total is None:
            return f"{self._rows:,} rows, {_number(rate)} rows/s"
        left = max(0, self._total - self._rows)
        ahead = f", {duration(left / rate)} left" if rate else ""
        return f"{self._rows:,} of {max(self._total, self._rows):,} rows, {_number(rate)} rows/s{ahead}"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def duration(seconds: float) -> str:
    """Return a time to wait in words, no more exact than it can be known: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
