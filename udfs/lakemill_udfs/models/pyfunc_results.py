"""What models give back, in any of the forms that MLflow allows, as tensors by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError, RowError
from lakemill_udfs.models.model import Arrays, Specs
from lakemill_udfs.tensors.casts import cast_numpy
from lakemill_udfs.tensors.ragged import from_rows, stacked
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec


def to_arrays(result: Any, outputs: Specs) -> Arrays:
    """Return a model's result as tensors by name; a null answer for a row is None in an object array.

    Args:
        result: A DataFrame or Series, an array, a dict of columns, a list of values or of one dict a row.
        outputs: What the model says it gives; empty if it says nothing.

    Raises:
        ModelError: ``MODEL_OUTPUT_TYPE`` for any other result, ``MODEL_OUTPUT_MISSING`` if a declared one lacks.
        RowError: ``MODEL_OUTPUT_RAGGED`` if a row's value is not of the declared type.
    """
    named = _named(result, outputs)
    if len(named) == 1 and len(outputs) == 1:
        named = {outputs[0].name: next(iter(named.values()))}
    if not outputs:  # only the dry run's probe calls a model that does not say them
        return {name: _stacked(values) for name, values in named.items()}
    missing = [spec.name for spec in outputs if spec.name not in named]
    if missing:
        raise ModelError(
            "MODEL_OUTPUT_MISSING", f"the model's result has no '{missing[0]}'; it has: {', '.join(named)}."
        )
    return {spec.name: _typed(named[spec.name], spec) for spec in outputs}


def _named(result: Any, outputs: Specs) -> dict[str, NDArray[Any]]:
    if isinstance(result, Mapping):
        return {str(name): _array(value) for name, value in result.items()}
    if hasattr(result, "columns"):  # a pandas DataFrame
        return {str(name): _column(result[name]) for name in result.columns}
    if isinstance(result, str | bytes) or not (isinstance(result, Sequence | np.ndarray) or hasattr(result, "array")):
        raise ModelError(
            "MODEL_OUTPUT_TYPE",
            f"the model gives a {type(result).__name__}; expected: a DataFrame, an array, a dict of columns or a list.",
        )
    is_rows = isinstance(result, Sequence) and bool(result) and all(isinstance(row, Mapping) for row in result)
    if is_rows:
        names = dict.fromkeys(name for row in result for name in row)
        return {str(name): _array([row.get(name) for row in result]) for name in names}
    array = _column(result) if hasattr(result, "to_numpy") else _array(result)
    if len(outputs) > 1 and array.ndim == 2 and array.shape[1] == len(outputs):
        return {spec.name: array[:, at] for at, spec in enumerate(outputs)}
    return {outputs[0].name if outputs else "output": array}


def _column(values: Any) -> NDArray[Any]:
    """Return a pandas column; a type of pandas' own keeps its nulls, which numpy's numbers have not."""
    array: NDArray[Any] = values.to_numpy() if isinstance(values.dtype, np.dtype) else values.to_numpy(dtype=object)
    return array


def _array(values: Any) -> NDArray[Any]:
    """Return an array; of rows that differ in size, or are dicts, one of objects."""
    if isinstance(values, Sequence) and any(value is None or isinstance(value, Mapping) for value in values):
        return from_rows(values)
    try:
        return np.asarray(values)
    except ValueError:  # numpy refuses nested lists of unequal size
        return from_rows(values)


def _stacked(array: NDArray[Any]) -> NDArray[Any]:
    """Stack arrays and lists that stand in the cells of a column."""
    if array.dtype == object and len(array) and isinstance(array[0], list | tuple | np.ndarray):
        return stacked([np.asarray(cell) for cell in array])
    return array


def _typed(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Give the safe casts that MLflow's signature leaves open; anything else is judged by the caller."""
    if spec.dtype in OBJECTS:
        return _objects(array, spec)
    if array.dtype == object:
        return stacked([_cell(cell, spec) for cell in array]) if len(array) else array.astype(spec.numpy_dtype)
    if array.dtype == spec.numpy_dtype or not np.can_cast(array.dtype, spec.numpy_dtype, "same_kind"):
        return array
    try:
        return cast_numpy(array, spec)
    except (RowError, pa.ArrowInvalid):
        raise RowError("OUTPUT_CAST", f"{spec.name}: expected {spec.dtype}, got a value that does not fit.") from None


def _cell(cell: Any, spec: TensorSpec) -> NDArray[Any] | None:
    if _is_null(cell):
        return None
    try:
        value = np.asarray(cell)
    except ValueError:
        value = np.asarray(None)
    if value.dtype == object or value.dtype.kind in "USM":
        raise RowError("MODEL_OUTPUT_RAGGED", f"{spec.name}: expected {spec}, got {type(cell).__name__} for this row.")
    return _typed(value, spec)[()]  # a scalar is one of numpy's, no array without axes


def _objects(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    array = array.astype("datetime64[us]") if array.dtype.kind == "M" else array
    if spec.shape:
        cells = [None if _is_null(cell) else np.asarray(cell, dtype=object) for cell in array]
        return stacked(cells) if cells else array.astype(object)
    return from_rows([_object(cell, spec) for cell in array.tolist()])


def _object(cell: Any, spec: TensorSpec) -> Any:
    if _is_null(cell):
        return None
    if spec.dtype == "datetime" and hasattr(cell, "to_pydatetime"):  # pandas' own class, with nanoseconds
        return cell.to_pydatetime(warn=False)
    return json.dumps(cell, default=str) if spec.dtype == "string" and isinstance(cell, Mapping | list) else cell


def _is_null(cell: Any) -> bool:
    """Return whether a cell is None, pandas' NA or NaT, or a lone NaN among objects."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float) and cell != cell  # noqa: PLR0124 -- NaN is not equal to itself
