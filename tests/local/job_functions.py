"""Functions that jobs of these tests name; workers import them."""

from __future__ import annotations

import os
import time

import numpy as np

Columns = dict[str, np.ndarray]


def twice(columns: Columns) -> Columns:
    return {"y": columns["x"] * 2.0}


def length(columns: Columns) -> Columns:
    return {"y": np.array([float(len(text)) for text in columns["x"]])}


def slowly(inputs: Columns) -> Columns:
    time.sleep(0.5)
    return {"y": inputs["x"]}


def who(columns: Columns) -> Columns:
    return {"y": np.full(len(columns["x"]), float(os.getpid()))}


def fails(columns: Columns) -> Columns:
    raise ValueError("these values")


def same_pixels(columns: Columns) -> Columns:
    return {"pixels": np.zeros((len(columns["x"]), 64), "float32")}
