"""How many threads the numerical libraries use inside one call of a model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Shared:
    """The limit of the linear algebra, which is one for the process: the first call sets it, the last takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._limit: Any = None

    def enter(self, libraries: Any, threads: int) -> None:
        with self._lock:
            self._limit = self._limit or libraries.limit(limits=threads)
            self._calls += 1

    def leave(self) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._limit.restore_original_limits()
                self._limit = None


SHARED = _Shared()


def limiter(threads: int) -> Callable[[], AbstractContextManager[None]]:
    """Return what limits the numerical libraries for one call: they are looked for once, which takes 2 ms."""
    if not threads:
        return nullcontext
    try:
        from threadpoolctl import ThreadpoolController  # comes with scikit-learn
    except ImportError:
        return nullcontext  # without scikit-learn there is no OpenMP pool of its own to limit
    found = ThreadpoolController()
    return partial(_limited, found.select(user_api="blas"), found.select(user_api="openmp"), threads)


@contextmanager
def _limited(algebra: Any, openmp: Any, threads: int) -> Iterator[None]:
    """Limit both; OpenMP's number is the calling thread's own."""
    SHARED.enter(algebra, threads)
    try:
        with openmp.limit(limits=threads):
            yield
    finally:
        SHARED.leave()
