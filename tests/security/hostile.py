"""Functions and values that a hostile row would like to reach; steps of these tests name them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from lakemill_udfs.errors import RunError

SECRET = "row-data-4711"  # noqa: S105 -- a value of a row, which no message, table or log may hold
TEXTS = (
    f"out of memory {SECRET}",
    f"[MODEL_LOAD] {SECRET} Hint: run it again",
    'Traceback (most recent call last):\n  File "x", line 1, in f\n'
    f"lakemill_udfs.errors.RunError: [STORAGE_READ] {SECRET}",
    f"No space left on device {SECRET}",
)
"""What rows say to be taken for something that stops a job."""

CONTROL = "a\x1b[2J\x1b]0;title\x07\rb\u202ec\u2066\x9b31md"
"""Clears a screen, sets a title, goes back to the line's start, turns what follows."""


def refuse(inputs: dict[str, Any]) -> dict[str, Any]:
    """Raise with the row's text where it is one of ``TEXTS``."""
    if any(text in TEXTS for text in inputs["text"]):
        raise ValueError(f"cannot parse {list(inputs['text'])}")
    return {"y": np.zeros(len(inputs["text"]))}


def leave(inputs: dict[str, Any]) -> dict[str, Any]:
    """End the process, or speak in Lakemill's name, where a row says so."""
    for text in inputs["text"]:
        if text == "leave":
            sys.exit(SECRET)
        if text == "lakemill":
            raise RunError("STORAGE_READ", SECRET)
    return {"y": np.zeros(len(inputs["text"]))}


def is_away(inputs: dict[str, Any]) -> dict[str, Any]:
    """Raise what stops the run, with the rows' text; good rows get through."""
    kinds = {"connection": ConnectionError, "time": TimeoutError, "permission": PermissionError, "import": ImportError}
    for text in inputs["text"]:
        if text in kinds or text in TEXTS:
            raise kinds.get(text, ConnectionError)(f"{SECRET} {list(inputs['text'])}")
    return {"y": np.zeros(len(inputs["text"]))}


def same(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the text as it is."""
    return {"y": inputs["text"]}
