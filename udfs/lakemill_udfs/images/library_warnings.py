"""Warnings of Pillow and libtiff over strangers' files: counted, and not printed once for each file.

Python's own way to catch warnings swaps process-wide state back and forth, which threads that decode side by side
break. So what shows warnings is replaced once, and the count is each thread's own.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import PIL._imaging


class _Count(threading.local):
    inside = 0
    warnings = 0


COUNT = _Count()


def warning_count() -> int:
    """Return how many warnings libraries gave in this thread so far."""
    return COUNT.warnings


@contextmanager
def counted_warnings() -> Iterator[None]:
    """Count the libraries' warnings inside instead of showing them."""
    _install()
    _quiet_libtiff()
    COUNT.inside += 1
    try:
        yield
    finally:
        COUNT.inside -= 1


def _install() -> None:
    if getattr(warnings.showwarning, "counts_images", False):
        return
    shown = warnings.showwarning

    def show(message: Any, category: Any, filename: str, *rest: Any, **named: Any) -> None:
        if COUNT.inside:
            COUNT.warnings += 1
        else:
            shown(message, category, filename, *rest, **named)

    show.counts_images = True  # type: ignore[attr-defined]  # marks the function, so that it is put in once
    warnings.showwarning = show


def _count_error(module: bytes, form: bytes, arguments: int) -> None:
    del module, form, arguments
    COUNT.warnings += 1


# Kept for ever, as libtiff calls it for ever.
ERROR_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(_count_error)


@lru_cache(maxsize=1)
def _quiet_libtiff() -> None:
    """Let libtiff count its errors, which Pillow leaves it to print; each is an exception of Pillow's besides."""
    try:
        ctypes.CDLL(PIL._imaging.__file__).TIFFSetErrorHandler(ERROR_HANDLER)
    except (AttributeError, OSError):  # a Pillow with its own copy of libtiff inside: then it prints
        return
