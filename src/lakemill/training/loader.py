"""Batches of a table, epoch by epoch: read and decoded ahead of the training, in an order that is known.

Threads read. They also decode and transform, unless processes were asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from lakemill.training.epochs import Epochs, Segment, Window
from lakemill.training.makers import Held, Processes, Taken, Threads
from lakemill.training.reading import Reading
from lakemill_udfs.errors import ConfigError, RunError

WINDOWS_AHEAD = 2
"""Windows that are read ahead of the one in use; each holds its rows as they are stored."""


class Loader:
    """Iterates over batches, ``{name: array}`` with rows first; each iteration goes on with the next epochs.

    The first iteration is epoch 0, or those from 0 on; an iteration that was left in mid-epoch is not taken up again,
    unless its ``state_dict`` is loaded.

    Use it as a context manager, so that its threads end with it.

    Args:
        reading: What is read.

    Raises:
        ConfigError: ``TRAINING_SHARDS``, ``TRAINING_BATCHES``.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._epochs = Epochs(tuple(block.rows for block in reading.table.blocks), reading.order)
        self._epoch = self._batch = 0
        self._until: int | None = None
        self._resumes = self._is_closed = False
        self._running: Generator[Any, None, None] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the threads of an iteration that goes on."""
        self._is_closed = True
        if self._running is not None:
            with suppress(ValueError):  # another thread waits for a batch of it, and finds that this is closed
                self._running.close()
            self._running = None

    def __len__(self) -> int:
        """Return the number of batches of one epoch, the same for every shard."""
        return len(self._epochs.batches)

    def __iter__(self) -> Iterator[Any]:
        if self._is_closed:
            raise RunError("TRAINING_CLOSED", "the loader is closed.", hint="use it inside its `with` block.")
        if self._running is not None:
            self._running.close()
        if not self._resumes:
            if self._batch:  # the last iteration was left in mid-epoch
                self._epoch, self._batch = self._epoch + 1, 0
            self._until = None if self.reading.epochs is None else self._epoch + self.reading.epochs
        self._resumes = False
        self._running = self._iterate()
        return self._running

    def _iterate(self) -> Generator[Any, None, None]:
        pool = ThreadPoolExecutor(self.reading.workers, thread_name_prefix="lakemill-training")
        makers = Processes(self.reading) if self.reading.in_processes else Threads(self.reading, pool)
        try:
            while self._until is None or self._epoch < self._until:
                for batch in self._batches(pool, makers):
                    self._batch += 1
                    yield batch
                    if self._is_closed:
                        return
                self._epoch, self._batch = self._epoch + 1, 0
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            makers.close()

    def _batches(self, pool: ThreadPoolExecutor, makers: Threads | Processes) -> Iterator[Any]:
        """Yield what is left of the epoch."""
        sizes = self._epochs.batches
        windows = self._epochs.windows(self._epoch, sum(sizes[: self._batch]))
        rows = _Rows(self.reading, windows, pool)
        ready: deque[Callable[[], Any]] = deque()
        for size in sizes[self._batch :]:
            ready.append(makers.submit(rows.take(size)))
            if len(ready) >= self.reading.ahead:
                yield ready.popleft()()
        while ready:
            yield ready.popleft()()

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration is: after the last batch that it gave out."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "until": self._until,
            "table_id": self.reading.table.id,
            "version": self.reading.table.version,
            "where": self.reading.table.where,
            "order": asdict(self.reading.order),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on behind the last batch before a ``state_dict``.

        Raises:
            ConfigError: ``TRAINING_STATE`` if it is of another table, version, order or shard.
        """
        own = self.state_dict()
        for name in ("table_id", "version", "where", "order"):
            if state.get(name) != own[name]:
                raise ConfigError(
                    "TRAINING_STATE",
                    f"the state is of another {name}: expected {own[name]}, got {state.get(name)}.",
                    hint="make the loader with the same arguments, on the same version of the table.",
                )
        self._epoch, self._batch, self._until = state["epoch"], state["batch"], state["until"]
        self._resumes = True


class _Rows:
    """The rows of an epoch in order, taken some at a time; what comes next is read ahead."""

    def __init__(self, reading: Reading, windows: Iterator[Window], pool: ThreadPoolExecutor) -> None:
        self._reading, self._windows, self._pool = reading, windows, pool
        self._waiting: deque[tuple[Window, list[Future[pa.Table]]]] = deque()
        self._held, self._places, self._used = Held([]), np.empty(0, np.int64), 0
        self._read_ahead()

    def _read_ahead(self) -> None:
        for window in islice(self._windows, max(0, WINDOWS_AHEAD - len(self._waiting))):
            self._waiting.append((window, [self._pool.submit(self._read, segment) for segment in window.segments]))

    def _read(self, segment: Segment) -> pa.Table:
        return self._reading.table.read(segment, self._reading.fields.columns)

    def take(self, size: int) -> Taken:
        """Return where the next ``size`` rows are, which may be in several windows."""
        taken = []
        while size:
            if self._used == len(self._places):
                self._next()
            part = self._places[self._used : self._used + size]
            taken.append((self._held, part))
            self._used += len(part)
            size -= len(part)
        return taken

    def _next(self) -> None:
        window, futures = self._waiting.popleft()
        self._held = Held([future.result() for future in futures])
        self._places, self._used = window.order, 0
        self._read_ahead()
