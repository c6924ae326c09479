"""Format steps: scores to labels, thresholds, masks and boxes; pixels to PNG or JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError, RowError
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.steps.declared import FormatStep
from lakemill_udfs.tensors.ragged import from_rows
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

CHANNELS = (1, 3, 4)
"""How many channels an image that is encoded may have; their axis is the last or the first one."""


def format_specs(step: FormatStep, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return a format step's outputs under their own names.

    Args:
        step: What to do.
        inputs: ``input``, and where the step names them ``boxes`` and ``classes``.

    Raises:
        ModelError: ``FORMAT_INPUT`` if an input has another shape or dtype than the step needs.
    """
    given = inputs["input"]
    if given.dtype in OBJECTS:
        raise ModelError("FORMAT_INPUT", f"the format step needs numbers; got {given}.")
    if step.encode is not None:
        return (_encoded_spec(step, given),)
    if step.boxes is not None:
        return _boxes_specs(step, inputs)
    if step.argmax is not None:
        if not 0 <= step.argmax < len(given.shape):
            raise ModelError("FORMAT_INPUT", f"'argmax' is axis {step.argmax}; '{step.input}' is {given}.")
        shape = given.shape[: step.argmax] + given.shape[step.argmax + 1 :]
        classes = given.shape[step.argmax]
        return (TensorSpec("mask", "uint8" if classes is not None and classes <= 256 else "int32", shape),)
    return _above_specs(step, given) if step.threshold is not None else _classes_specs(step, given)


def run_format(step: FormatStep, inputs: Arrays) -> Arrays:
    """Return the step's outputs under their own names.

    Args:
        step: Its labels are resolved to a tuple.
        inputs: ``input``, and where the step names them ``boxes`` and ``classes``; ``(n, ...)``.

    Raises:
        ModelError: ``FORMAT_LABELS`` if there are not as many labels as classes, ``FORMAT_TOP_K`` if there are fewer
            classes than ``top_k``.
        RowError: ``FORMAT_LABELS`` if a box is of a class without a label.
    """
    values = inputs["input"]
    if step.encode is not None:
        return {step.input: from_rows([encode(image, step.encode) for image in values])}
    if step.boxes is not None:
        return _best_boxes(step, values, inputs["boxes"], inputs.get("classes"))
    if step.argmax is not None:
        best = values.argmax(axis=step.argmax + 1)
        return {"mask": best.astype(np.uint8 if values.shape[step.argmax + 1] <= 256 else np.int32)}
    if step.threshold is not None:
        return _above(step, values)
    return _best_classes(step, values)


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return probabilities ``(n, classes)``, summing to 1 in each row, computed in float64 from the row's maximum down.

    Args:
        scores: Any float dtype, ``(n, classes)``.
    """
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def encode(image: NDArray[Any], kind: str) -> bytes:
    """Return an image as the bytes of a PNG or JPEG file.

    Args:
        image: ``(height, width)``, or with 1, 3 or 4 channels as the last or first axis; uint8, or for PNG also bool
            and, with one channel, uint16.
        kind: ``png`` or ``jpeg``.
    """
    from PIL import Image

    if image.ndim == 3:
        image = image if image.shape[2] in CHANNELS else np.moveaxis(image, 0, 2)
        image = image[:, :, 0] if image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind.upper())
    return buffer.getvalue()


def _best_classes(step: FormatStep, scores: NDArray[Any]) -> Arrays:
    classes = math.prod(scores.shape[1:])
    scores = scores.reshape(len(scores), classes)
    _check_labels(step, classes)
    if step.top_k > classes:
        raise ModelError("FORMAT_TOP_K", f"'top_k' is {step.top_k}; '{step.input}' has {classes} classes.")
    values = softmax(scores) if step.softmax else scores.astype(np.float32, copy=False)
    order = np.argsort(-values, axis=1, kind="stable")[:, : step.top_k]
    best = np.take_along_axis(values, order, axis=1)
    names = np.asarray(step.labels, dtype=object)[order] if step.labels is not None else order.astype(np.int64)
    return {"label": names[:, 0], "probability": best[:, 0], "top_labels": names, "top_probabilities": best}


def _above(step: FormatStep, values: NDArray[Any]) -> Arrays:
    above = values > step.threshold
    if step.labels is None:
        return {"above": above}
    names = np.asarray(step.labels, dtype=object)
    if above.ndim == 1:
        _check_labels(step, 2)
        return {"above": above, "label": names[above.astype(np.int64)]}
    _check_labels(step, above.shape[1])
    return {"above": above, "labels": from_rows([names[row] for row in above])}


def _best_boxes(step: FormatStep, scores: NDArray[Any], boxes: NDArray[Any], classes: NDArray[Any] | None) -> Arrays:
    results: dict[str, list[NDArray[Any]]] = {name: [] for name in ("boxes", "scores", "classes", "labels")}
    for row in range(len(scores)):
        score, kind = np.asarray(scores[row]), None if classes is None else np.asarray(classes[row])
        if score.ndim == 2:  # a score for each class of each box
            score, kind = score.max(axis=1, initial=-np.inf), score.argmax(axis=1)
        order = np.argsort(-score, kind="stable")
        if step.threshold is not None:
            order = order[score[order] > step.threshold]
        results["boxes"].append(np.asarray(boxes[row])[order])
        results["scores"].append(score[order].astype(np.float32))
        if kind is not None:
            results["classes"].append(kind[order].astype(np.int64))
            results["labels"].append(_names(step, kind[order].astype(np.int64)))
    return {name: from_rows(rows) for name, rows in results.items()}


def _names(step: FormatStep, classes: NDArray[np.int64]) -> NDArray[Any]:
    if step.labels is None:
        return classes
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(step.labels):
        raise RowError(
            "FORMAT_LABELS", f"a box is of a class that 'labels' has no name for; it has {len(step.labels)}."
        )
    return np.asarray(step.labels, dtype=object)[classes]


def _check_labels(step: FormatStep, classes: int) -> None:
    if step.labels is not None and len(step.labels) != classes:
        raise ModelError("FORMAT_LABELS", f"'{step.input}' has {classes} classes; 'labels' names {len(step.labels)}.")


def _classes_specs(step: FormatStep, given: TensorSpec) -> tuple[TensorSpec, ...]:
    if not given.shape or sum(size != 1 for size in given.shape) > 1 or given.dtype == "bool":
        raise ModelError("FORMAT_INPUT", f"the format step needs one score a class, shape (classes,); got {given}.")
    kind = "string" if step.labels is not None else "int64"
    best = (TensorSpec("label", kind), TensorSpec("probability", "float32"))
    if step.top_k == 1:
        return best
    top = (step.top_k,)
    return (*best, TensorSpec("top_labels", kind, top), TensorSpec("top_probabilities", "float32", top))


def _above_specs(step: FormatStep, given: TensorSpec) -> tuple[TensorSpec, ...]:
    above = TensorSpec("above", "bool", given.shape)
    if step.labels is None:
        return (above,)
    if len(given.shape) > 1:
        raise ModelError("FORMAT_INPUT", f"labels need one score, or one a class; got {given}.")
    return (above, TensorSpec("labels", "string", (None,)) if given.shape else TensorSpec("label", "string"))


def _encoded_spec(step: FormatStep, given: TensorSpec) -> TensorSpec:
    is_grey = len(given.shape) == 2 or (len(given.shape) == 3 and 1 in (given.shape[0], given.shape[2]))
    is_image = is_grey or (len(given.shape) == 3 and any(given.shape[axis] in CHANNELS for axis in (0, 2)))
    dtypes = {"uint8"} | ({"bool", "uint16"} if step.encode == "png" and is_grey else set())
    if not is_image or given.dtype not in dtypes:
        raise ModelError(
            "FORMAT_INPUT",
            f"{step.encode} needs (height, width), or 1, 3 or 4 channels with it, of {', '.join(sorted(dtypes))}; "
            f"got {given}.",
            hint="scale it in a Python step first: (x * 255).astype('uint8')",
        )
    return TensorSpec(step.input, "binary")


def _boxes_specs(step: FormatStep, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
    scores, boxes, classes = inputs["input"], inputs["boxes"], inputs.get("classes")
    if len(boxes.shape) != 2 or boxes.shape[1] not in (4, None) or len(scores.shape) not in (1, 2):
        raise ModelError(
            "FORMAT_INPUT",
            f"boxes need shape (count, 4), their scores (count,) or (count, classes); got {boxes}, {scores}.",
        )
    best = (
        TensorSpec("boxes", boxes.dtype, (None, 4), storage="array"),
        TensorSpec("scores", "float32", (None,), storage="array"),
    )
    if classes is None and len(scores.shape) == 1:
        return best
    names = TensorSpec("labels", "string", (None,)) if step.labels is not None else None
    return (*best, names or TensorSpec("classes", "int64", (None,), storage="array"))
