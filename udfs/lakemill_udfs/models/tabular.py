"""Models on tables: tensors by name to a DataFrame or one array, and results back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.model import Arrays, Specs
from lakemill_udfs.models.pyfunc_results import to_arrays
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

ARRAY = "inputs"
"""The name of the one array that feeds a model which has no names of its own."""

OUTPUTS = {
    "predict": "predictions",
    "predict_proba": "probabilities",
    "predict_log_proba": "log_probabilities",
    "decision_function": "scores",
    "score_samples": "scores",
    "transform": "features",
    "margin": "margin",
}
"""What the result of a method is called where nothing else names it."""


def features(names: Sequence[str] | None, count: int, dtypes: Mapping[str, str], *, nullable: bool) -> Specs:
    """Return the inputs of a model that knows its features.

    Args:
        names: Their names, each a column then; None for one array ``inputs``.
        count: How many there are.
        dtypes: Of those that are no float64.
        nullable: Whether a value may be missing; a missing number is NaN.
    """
    if names is None:
        return (TensorSpec(ARRAY, dtypes.get(ARRAY, "float64"), (count,)),)
    return tuple(TensorSpec(name, dtypes.get(name, "float64"), (), nullable) for name in map(str, names))


def to_array(inputs: Arrays) -> NDArray[Any]:
    """Return tensors by name as one array ``(n, features)``."""
    arrays = list(inputs.values())
    return arrays[0] if len(arrays) == 1 and arrays[0].ndim > 1 else np.column_stack(arrays)


def to_frame(inputs: Arrays, names: Sequence[Any] | None = None, specs: Specs = ()) -> Any:
    """Return tensors by name as a DataFrame.

    Args:
        inputs: One column each, or one array ``(n, features)``.
        names: The columns' names in the model's order; None leaves those of ``inputs``.
        specs: Of the inputs; points in time become pandas' own.
    """
    import pandas as pd

    first = next(iter(inputs.values()))
    if len(inputs) == 1 and first.ndim == 2 and names is not None:
        return pd.DataFrame(first, columns=list(names), copy=False)
    times = {spec.name for spec in specs if spec.dtype == "datetime"}
    columns = {
        name: pd.to_datetime(array) if name in times else array if array.ndim == 1 else list(array)
        for name, array in inputs.items()
    }
    if names is not None and {str(name) for name in names} == set(columns):
        columns = {name: columns[str(name)] for name in names}
    return pd.DataFrame(columns, copy=False)


def is_numeric(inputs: Arrays) -> bool:
    """Return whether every tensor holds numbers."""
    return all(array.dtype.kind in "biuf" for array in inputs.values())


def results(result: Any, method: str, outputs: Specs) -> Arrays:
    """Return what a method gave as tensors by name; matrices of zeros become arrays.

    Args:
        result: An array, a DataFrame, a sparse matrix, or a list with one array for each of several targets.
        method: What gave it.
        outputs: What is declared; empty if nothing is.
    """
    if hasattr(result, "toarray"):
        result = result.toarray()
    if isinstance(result, list) and result and isinstance(result[0], np.ndarray) and result[0].ndim == 2:
        result = {f"{OUTPUTS[method]}_{at}": array for at, array in enumerate(result)}
    if outputs or isinstance(result, Mapping) or hasattr(result, "columns"):
        return to_arrays(result, outputs)
    return {OUTPUTS.get(method, "output"): np.asarray(result)}


def probed(predict: Callable[[Arrays], Arrays], inputs: Specs, known: Mapping[str, Any] | None = None) -> Specs:
    """Return a model's outputs from one call with a made-up row; empty if it does not take that row.

    Args:
        predict: From tensors by name to its results by name.
        inputs: What it takes.
        known: A value of inputs that take no other, as of categories.
    """
    row = {spec.name: np.array([_value(spec, known or {})], spec.numpy_dtype) for spec in inputs}
    row = {spec.name: np.broadcast_to(row[spec.name], (1, *(size or 1 for size in spec.shape))) for spec in inputs}
    try:
        found = predict(row)
    except Exception:  # a model may refuse any row that is none of its own; then its outputs have to be declared
        return ()
    return tuple(_spec_of(name, np.asarray(array)) for name, array in found.items())


def _value(spec: TensorSpec, known: Mapping[str, Any]) -> Any:
    return known.get(spec.name, "" if spec.dtype in OBJECTS else 0)


def _spec_of(name: str, array: NDArray[Any]) -> TensorSpec:
    dtype = "string" if array.dtype.kind in "OU" else array.dtype.name
    return TensorSpec(name, dtype, array.shape[1:])


def method_of(model: Any, method: str, name: str) -> Callable[..., Any]:
    """Return a method of a model.

    Raises:
        ModelError: ``MODEL_OPTION`` if it has none of that name.
    """
    found = getattr(model, method, None)
    if not callable(found):
        there = [known for known in OUTPUTS if callable(getattr(model, known, None))]
        raise ModelError(
            "MODEL_OPTION",
            f"model '{name}' ({type(model).__name__}) has no {method}; it has: {', '.join(there) or 'none'}.",
            hint="options: {method: predict}",
        )
    return found  # type: ignore[no-any-return]  # a method of a class that has no types
