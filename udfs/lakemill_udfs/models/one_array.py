"""One array ``inputs`` in place of a model's inputs of single numbers, in the order in which the model has them."""

from __future__ import annotations

from collections.abc import Callable

from lakemill_udfs.models.model import Arrays, Specs
from lakemill_udfs.tensors.casts import cast_numpy
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

NAME = "inputs"


def one_array(inputs: Specs) -> TensorSpec | None:
    """Return the array that may feed a model in place of its inputs; None if one of them is no single number."""
    is_plain = all(not spec.shape and spec.dtype not in OBJECTS for spec in inputs)
    return TensorSpec(NAME, "float64", (len(inputs),)) if len(inputs) > 1 and is_plain else None


def spread(predict: Callable[[Arrays], Arrays], specs: Specs) -> Callable[[Arrays], Arrays]:
    """Return a model's ``predict`` that also takes that array."""
    if one_array(specs) is None:
        return predict

    def spreading(inputs: Arrays) -> Arrays:
        if inputs.keys() != {NAME}:
            return predict(inputs)
        columns = inputs[NAME].T
        return predict({spec.name: cast_numpy(columns[at], spec) for at, spec in enumerate(specs)})

    return spreading
