"""What makes batches of rows that were read: threads of this process, or processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill.training.fields import Arrays, Fields
from lakemill.training.reading import Reading
from lakemill_udfs.errors import ConfigError, RunError


class Held:
    """Rows of several tables, one after the other, of which some are taken at a time.

    Args:
        tables: With the same columns.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._batches = [batch for table in tables for batch in table.to_batches()]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def take(self, places: NDArray[np.int64]) -> pa.Table:
        """Return rows by their places; what stands together is not copied.

        Arrow's own ``take`` would first copy all rows into one piece, each time.
        """
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        grouped = np.argsort(numbers, kind="stable")
        parts = []
        for group in np.split(grouped, np.flatnonzero(np.diff(numbers[grouped])) + 1):
            number = numbers[group[0]]
            rows = places[group] - self._starts[number]
            batch = self._batches[number]
            is_run = rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
            parts.append(batch.slice(rows[0], len(rows)) if is_run else batch.take(pa.array(rows)))
        found = pa.Table.from_batches(parts)
        return found if (np.diff(grouped) > 0).all() else found.take(pa.array(np.argsort(grouped)))


Taken = list[tuple[Held, NDArray[np.int64]]]
"""Where the rows of a batch are."""


class Threads:
    """Batches made by the threads that also read."""

    def __init__(self, reading: Reading, pool: ThreadPoolExecutor) -> None:
        self._reading, self._pool = reading, pool

    def submit(self, taken: Taken) -> Callable[[], Any]:
        """Begin a batch; what is returned waits for it."""
        return self._pool.submit(self._made, taken).result

    def close(self) -> None:
        """Nothing is left to end."""

    def _made(self, taken: Taken) -> Any:
        return self._reading.finish(self._reading.fields.arrays(_table(taken)))


class Processes:
    """Batches made by processes: for functions that hold Python's lock. Rows go there and arrays come back, copied.

    Raises:
        ConfigError: ``TRAINING_TRANSFORM`` for a function that cannot be sent.
    """

    def __init__(self, reading: Reading) -> None:
        self._finish = reading.finish
        try:
            fields = pickle.dumps(reading.fields)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                "TRAINING_TRANSFORM",
                f"a transform cannot be sent to processes ({type(error).__name__}).",
                hint="put its function into a module, or leave reader_pool_type at 'thread'.",
            ) from error
        self._pool = ProcessPoolExecutor(reading.workers, get_context("spawn"), _begin, (fields,))

    def submit(self, taken: Taken) -> Callable[[], Any]:
        """Begin a batch; what is returned waits for it."""
        sink = pa.BufferOutputStream()
        table = _table(taken)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        try:
            coming = self._pool.submit(_arrays, sink.getvalue().to_pybytes())
        except BrokenProcessPool as error:
            raise _ended() from error

        def wait() -> Any:
            try:
                return self._finish(coming.result())
            except BrokenProcessPool as error:
                raise _ended() from error

        return wait

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)


_fields: Fields


def _begin(fields: bytes) -> None:
    global _fields  # noqa: PLW0603 -- a process is told once what it makes
    _fields = pickle.loads(fields)  # noqa: S301 -- our own, from our parent


def _arrays(rows: bytes) -> Arrays:
    return _fields.arrays(pa.ipc.open_stream(rows).read_all())


def _table(taken: Sequence[tuple[Held, NDArray[np.int64]]]) -> pa.Table:
    return pa.concat_tables([held.take(places) for held, places in taken])


def _ended() -> RunError:
    return RunError(
        "TRAINING_WORKER",
        "a process that makes batches has ended.",
        hint="it had no memory, or the script has no `if __name__ == '__main__':` around what it does.",
    )
