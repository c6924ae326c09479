"""Work spread over threads or processes of this machine: bounded memory, and no process that outlives its parent.

Threads share one copy of a model; processes are for work that keeps Python's lock, and for what may crash. Either takes
one item at a time, and says what it did as events in one queue, which the caller's thread reads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from lakemill.engines.local.process_worker import ProcessWorker
from lakemill_udfs.errors import RunError
from lakemill_udfs.failures import worker_failure

ATTEMPTS = 5
"""Tries of one item, each with half the batch of the one before."""

LAST_WAIT_SECONDS = 5.0
"""For threads to end the batch they are at, once nobody waits for it."""

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Kind = Literal["threads", "processes"]
Tell = Callable[[int], None]


class Work(Protocol[Item_contra, Result_co]):
    """What is done with each item; picklable, of a module that can be imported."""

    def prepare(self) -> None:
        """Load what threads share, before they start."""
        ...

    def __call__(self, item: Item_contra, tell: Tell) -> Result_co:
        """Do it; ``tell`` says how many more rows are done, and ends the work if nobody waits for it any more."""
        ...

    def smaller(self) -> Work[Item_contra, Result_co] | None:
        """Return the same with half the batch, for an item that a worker died of; None if there is no smaller one."""
        ...


@dataclass(frozen=True)
class Workers:
    """How work is spread.

    Args:
        kind: ``threads`` or ``processes``.
        count: How many at most.
        threads: Threads that each may use inside a model: the cores, divided by the workers.
        reason: Why so, in a few words for the plan.
    """

    kind: Kind
    count: int
    threads: int
    reason: str = ""


class _Stopped(Exception):  # noqa: N818 -- no error: the thread is told to end
    pass


@dataclass
class _Attempt(Generic[Item, Result]):
    item: Item
    work: Work[Item, Result]
    number: int = 1
    told: int = 0


class _ThreadWorker:
    """Does one item at a time in a thread of this process."""

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
        self._inbox.put((work, item))

    def stop(self) -> None:
        self._stopped.set()
        self._inbox.put(None)

    def join(self) -> None:
        self._thread.join(LAST_WAIT_SECONDS)


def run(
    work: Work[Item, Result], items: Iterable[Item], workers: Workers, on_rows: Tell | None = None
) -> Iterator[Result]:
    """Do some work with each item; yield results as they come.

    At most one item a worker is on its way, and the next is only taken when one is done. An item that its worker dies
    of (memory, a crash in native code) is done again with half the batch, the others are not touched. However this
    ends, by an error, Ctrl-C, or because the caller stops asking, no worker is left.

    Args:
        work: What is done.
        items: With what; taken one by one.
        workers: How many, and threads or processes.
        on_rows: Told of rows done, in the caller's thread; less than 0 for those of an attempt that was lost.

    Raises:
        LakemillError: what a worker raised, ``WORKER_FAILED`` if that was no error of ours, ``WORKER_DIED`` if one died
            of the same item again and again.
    """
    if workers.kind == "threads":
        work.prepare()
    crew: _Crew[Item, Result] = _Crew(workers, on_rows or (lambda _: None))
    try:
        yield from crew.run(work, items)
    finally:
        crew.end()


@dataclass
class _Crew(Generic[Item, Result]):
    workers: Workers
    on_rows: Tell
    events: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    busy: dict[Any, _Attempt[Item, Result]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)

    def run(self, work: Work[Item, Result], items: Iterable[Item]) -> Iterator[Result]:
        waiting = iter(items)
        for item in waiting:
            self._start(_Attempt(item, work))
            if len(self.busy) == self.workers.count:
                break
        while self.busy:
            event, worker, payload = self.events.get()
            if event == "rows":
                self.busy[worker].told += payload
                self.on_rows(payload)
            elif event == "failed":
                raise payload
            elif event == "died":
                self._again(worker, payload)
            else:
                del self.busy[worker]
                self.idle.append(worker)
                for item in waiting:
                    self._start(_Attempt(item, work))
                    break
                yield payload

    def _start(self, attempt: _Attempt[Item, Result]) -> None:
        if not self.idle:
            is_thread = self.workers.kind == "threads"
            self.idle.append(
                _ThreadWorker(self.events) if is_thread else ProcessWorker(self.events, self.workers.threads)
            )
        worker = self.idle.pop()
        self.busy[worker] = attempt
        worker.give(attempt.work, attempt.item)

    def _again(self, worker: Any, how: str) -> None:
        attempt = self.busy.pop(worker)
        self.on_rows(-attempt.told)
        if isinstance(worker, _ThreadWorker):
            self.idle.append(worker)
        smaller = attempt.work.smaller()
        if smaller is None or attempt.number == ATTEMPTS:
            raise RunError(
                "WORKER_DIED",
                f"a worker {how} in each of {attempt.number} attempts at the same rows: most often out of memory, or a "
                "crash in native code.",
                hint="lower engine.batch_rows or engine.batch_bytes; the log above may hold a native stack.",
            )
        self._start(_Attempt(attempt.item, smaller, attempt.number + 1))

    def end(self) -> None:
        everyone = [*self.busy, *self.idle]
        for worker in everyone:
            worker.stop()
        for worker in everyone:
            worker.join()
