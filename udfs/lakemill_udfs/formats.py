"""Class scores to labels and probabilities."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError
from lakemill_udfs.models import Arrays
from lakemill_udfs.steps import FormatStep


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return probabilities ``(n, classes)``, summing to 1 in each row, computed in float64 from the row's maximum down.

    Args:
        scores: Any float dtype, ``(n, classes)``.
    """
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def format_scores(step: FormatStep, scores: NDArray[np.floating]) -> Arrays:
    """Return the step's outputs under its own names.

    Args:
        step: Its labels are resolved to a tuple.
        scores: ``(n, classes)``, or with further dimensions of size 1 as some networks have them.

    Raises:
        ModelError: ``FORMAT_LABELS`` if there are not as many labels as classes, ``FORMAT_TOP_K`` if there are fewer
            classes than ``top_k``.
    """
    classes = math.prod(scores.shape[1:])
    scores = scores.reshape(len(scores), classes)
    if step.labels is not None and len(step.labels) != classes:
        raise ModelError("FORMAT_LABELS", f"'{step.input}' has {classes} classes; 'labels' names {len(step.labels)}.")
    if step.top_k > classes:
        raise ModelError("FORMAT_TOP_K", f"'top_k' is {step.top_k}; '{step.input}' has {classes} classes.")
    values = softmax(scores) if step.softmax else scores.astype(np.float32, copy=False)
    order = np.argsort(-values, axis=1, kind="stable")[:, : step.top_k]
    best = np.take_along_axis(values, order, axis=1)
    names = np.asarray(step.labels, dtype=object)[order] if step.labels is not None else order.astype(np.int64)
    return {"label": names[:, 0], "probability": best[:, 0], "top_labels": names, "top_probabilities": best}
