"""Functions that the Python steps of ``test_ownership`` name."""

from __future__ import annotations

import numpy as np

Columns = dict[str, np.ndarray]


def twice(columns: Columns) -> Columns:
    return {"y": columns["x"] * 2.0}


def twice_and_thrice(columns: Columns) -> Columns:
    return {"y": columns["x"] * 2.0, "z": columns["x"] * 3.0}


def even(columns: Columns) -> Columns:
    if (columns["x"] % 2 == 1).any():
        raise ValueError("odd")
    return twice(columns)


def even_and_thrice(columns: Columns) -> Columns:
    if (columns["x"] % 2 == 1).any():
        raise ValueError("odd")
    return twice_and_thrice(columns)


def length(columns: Columns) -> Columns:
    return {"y": np.array([float(len(text)) for text in columns["x"]])}


def halved(columns: Columns) -> Columns:
    return {"half": columns["score"] / 2.0}
