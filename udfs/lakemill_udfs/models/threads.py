"""How many threads the numerical libraries use inside one call of a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any


def limiter(threads: int) -> Callable[[], AbstractContextManager[Any]]:
    """Return what limits the numerical libraries for one call: they are looked for once, which takes 2 ms."""
    if not threads:
        return nullcontext
    try:
        from threadpoolctl import ThreadpoolController  # comes with scikit-learn
    except ImportError:
        return nullcontext  # without scikit-learn there is no OpenMP pool of its own to limit
    return partial(ThreadpoolController().limit, limits=threads)
