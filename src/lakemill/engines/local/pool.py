"""Work spread over threads or processes of this machine: bounded memory, and no process that outlives its parent.

Threads share one copy of a model; processes are for work that keeps Python's lock, and for what may crash. Either takes
one item at a time, and says what it did as events in one queue, which the caller's thread reads.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, Literal, Protocol, TypeVar

from lakemill.engines.local.process_worker import ProcessWorker
from lakemill.engines.local.thread_worker import ThreadWorker
from lakemill_udfs.errors import RunError

ATTEMPTS = 5
"""Tries of one item, each with half the batch of the one before."""

ALONE_SECONDS = 0.5
"""That a thread of this process works before there are others: to start one takes twice as long."""

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
        begins_here: Whether a thread of this process begins, and goes on until processes are there, if the work is not
            done by then.
        is_forced: Whether the job says which kind: then a single item is theirs too.
    """

    kind: Kind
    count: int
    threads: int
    reason: str = ""
    begins_here: bool = False
    is_forced: bool = False


@dataclass
class _Attempt(Generic[Item, Result]):
    item: Item
    work: Work[Item, Result]
    number: int = 1
    told: int = 0


def run(
    work: Work[Item, Result],
    items: Iterable[Item],
    workers: Workers,
    on_rows: Tell | None = None,
    here: Work[Item, Result] | None = None,
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
        here: The same work for a thread of this process, which begins where ``workers`` says so.

    Raises:
        LakemillError: what a worker raised, ``WORKER_FAILED`` if that was no error of ours, ``WORKER_DIED`` if one died
            of the same item again and again.
    """
    if workers.kind == "threads":
        work.prepare()
    here = here if workers.begins_here else None
    crew: _Crew[Item, Result] = _Crew(workers, on_rows or (lambda _: None), work, iter(items), here)
    try:
        yield from crew.run()
    finally:
        crew.end()


@dataclass
class _Crew(Generic[Item, Result]):
    """Workers at their work.

    Args:
        workers: How many and which.
        on_rows: Told of rows done.
        work: What is done.
        waiting: With what.
        here: The same for ``first``, a thread of this process that begins; None without one, and once the processes
            that are ``coming`` are there.
    """

    workers: Workers
    on_rows: Tell
    work: Work[Item, Result]
    waiting: Iterator[Item]
    here: Work[Item, Result] | None
    events: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    busy: dict[Any, _Attempt[Item, Result]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    first: ThreadWorker | None = None
    coming: set[Any] = field(default_factory=set)
    patience: float | None = None

    def run(self) -> Iterator[Result]:
        if self.here is not None:
            self.first, self.patience = ThreadWorker(self.events), time.monotonic() + ALONE_SECONDS
            self._go_on(self.first)
        else:
            for item in islice(self.waiting, self.workers.count):
                self._start(_Attempt(item, self.work))
        while self.busy:
            event, worker, payload = self._next_event()
            if event == "rows":
                self.busy[worker].told += payload
                self.on_rows(payload)
            elif event == "failed":
                raise payload
            elif event == "died":
                self._again(worker, payload)
            else:
                is_result = self.busy.pop(worker, None) is not None
                self._go_on(worker)
                if is_result:
                    yield payload

    def _next_event(self) -> Any:
        """Wait for what a worker says; once the thread has worked alone for a while, call for processes."""
        if self.patience is not None:
            try:
                return self.events.get(timeout=max(0.0, self.patience - time.monotonic()))
            except queue.Empty:
                self.patience = None
                for _ in range(self.workers.count):
                    worker = ProcessWorker(self.events, self.workers.threads)
                    self.coming.add(worker)
                    worker.give(partial(_come, self.work), None)
        return self.events.get()

    def _go_on(self, worker: Any) -> None:
        """Give a worker that is free the next item; the thread only as long as no process is there."""
        if worker in self.coming:
            self.coming.remove(worker)
            self.here = None
        is_first = worker is self.first
        if not is_first:
            self.idle.append(worker)
        work = self.here if is_first else self.work
        if work is None:
            return
        for item in islice(self.waiting, 1):
            self._start(_Attempt(item, work), worker if is_first else None)

    def _start(self, attempt: _Attempt[Item, Result], worker: Any = None) -> None:
        if worker is None and not self.idle:
            is_thread = self.workers.kind == "threads"
            self.idle.append(
                ThreadWorker(self.events) if is_thread else ProcessWorker(self.events, self.workers.threads)
            )
        worker = worker or self.idle.pop()
        self.busy[worker] = attempt
        worker.give(attempt.work, attempt.item)

    def _again(self, worker: Any, how: str) -> None:
        if worker in self.coming:
            self.coming.remove(worker)  # the thread goes on without it
            return
        attempt = self.busy.pop(worker)
        self.on_rows(-attempt.told)
        if isinstance(worker, ThreadWorker):
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
        everyone = {*self.busy, *self.idle, *self.coming, *([self.first] if self.first is not None else [])}
        for worker in everyone:
            worker.stop()
        for worker in everyone:
            worker.join()


def _come(work: Work[Any, Any], item: None, tell: Tell) -> None:
    """Do what a process does before its first item."""
    work.prepare()
