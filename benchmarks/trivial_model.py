"""The model of the input forms benchmark: the largest value of each tensor, for both ways of asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (224, 224, 3)


def largest(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Lakemill's Python step."""
    return {"y": inputs["x"].reshape(len(inputs["x"]), -1).max(axis=1)}


def largest_of_batch() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What ``predict_batch_udf`` calls once to get the function that it calls for each batch."""
    return lambda x: x.reshape(len(x), -1).max(axis=1)


def first(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Give the first value of each tensor, so that reading is all there is to do."""
    return {"y": inputs["x"].reshape(len(inputs["x"]), -1)[:, 0]}
