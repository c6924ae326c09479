"""Python steps: functions of the user's, found by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.steps.callables import form_of
from lakemill_udfs.tensors.cells import is_missing
from lakemill_udfs.tensors.columns import read_tensor
from lakemill_udfs.tensors.ragged import from_rows, stacked
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec, tensor_of

CELLS = (list, tuple, np.ndarray)
"""What a tensor is in a DataFrame's cell."""


def import_function(path: str | Callable[..., Any], archive: str | None = None) -> Callable[..., Any]:
    """Return the function of ``module:function``.

    Args:
        path: The import path, or the function itself.
        archive: Name of the zip with the user's top-level module or package that was shipped to this worker, or the
            folder that holds it here. One that came from somewhere else, as an older version in a reused worker did, is
            imported anew.

    Raises:
        ConfigError: ``FUNCTION_NOT_FOUND`` if there is no such module or function.
    """
    if callable(path):
        return path
    module_name, _, name = path.partition(":")
    if archive is not None:
        _prefer(archive, module_name)
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "FUNCTION_NOT_FOUND",
            f"'{path}' cannot be imported: {error}.",
            hint="the module must be importable where the command is run: from the working folder, or installed.",
        ) from error
    return function


def _prefer(archive: str, module_name: str) -> None:
    """Let a module's top-level package be imported from an archive, if it was not already.

    All of the package goes: what is left of an older version would be imported again by its new parts. Python's import
    caches are left alone where they are good: to read the directories of all archives on the path again takes 0.3 s,
    and this runs in every task.
    """
    package = module_name.partition(".")[0]
    loaded = [sys.modules.get(name) for name in (package, module_name)]  # a package without __init__.py has no file
    if any(archive in (getattr(module, "__file__", None) or "") for module in loaded):
        return
    for stale in [key for key in sys.modules if key == package or key.startswith(package + ".")]:
        del sys.modules[stale]
    if Path(archive).is_dir() and archive not in sys.path:
        sys.path.insert(0, archive)
    sys.path.sort(key=lambda entry: archive not in entry)
    importlib.invalidate_caches()


def call_function(function: Callable[..., Any], inputs: Arrays) -> Arrays:
    """Call a user's function with what its parameters ask for; see ``callables.form_of``.

    Args:
        function: Takes its inputs by name, or a dict of arrays, a ``pandas.DataFrame``, a ``pyarrow.Table`` or
            ``RecordBatch``, and returns any of the last four, or a ``polars.DataFrame``.
        inputs: Tensors by name, ``(n, ...)``.

    Raises:
        ModelError: ``FUNCTION_RESULT`` if the result is none of these.
    """
    form = form_of(function, inputs)
    result = function(**inputs) if form == "names" else function(_argument(form, inputs))
    if isinstance(result, Mapping):
        return {str(name): _from_values(str(name), value) for name, value in result.items()}
    if hasattr(result, "to_arrow"):  # a polars DataFrame
        result = result.to_arrow()
    names = list(getattr(result, "column_names", getattr(result, "columns", ())))
    if len(set(names)) < len(names):
        raise ModelError("FUNCTION_RESULT", "two columns of a Python step's result have one name.")
    if hasattr(result, "column_names"):  # a pyarrow Table or RecordBatch
        return {name: _from_arrow(name, result[name]) for name in result.column_names}
    if hasattr(result, "columns"):  # a pandas DataFrame
        frame = _in_order(result)
        return {str(name): _from_cells(_of_series(frame[name])) for name in frame.columns}
    raise ModelError(
        "FUNCTION_RESULT",
        f"a Python step returns a dict of arrays, a DataFrame or a Table; got {type(result).__name__}.",
    )


def _argument(form: str, inputs: Arrays) -> Any:
    if form == "frame":
        import pandas as pd

        return pd.DataFrame({name: array if array.ndim == 1 else list(array) for name, array in inputs.items()})
    if form in ("table", "batch"):
        table = pa.table({name: _to_arrow(array) for name, array in inputs.items()})
        return table if form == "table" else table.combine_chunks().to_batches()[0]
    return inputs


def _to_arrow(array: NDArray[Any]) -> pa.Array:
    """Return scalars, lists or, from rank 2 a row, fixed-shape tensors."""
    if array.dtype == object:
        return pa.array(array.tolist())
    if array.ndim > 2:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))
    return pa.array(array if array.ndim == 1 else list(array))


def _from_arrow(name: str, column: Any) -> NDArray[Any]:
    if pa.types.is_null(column.type):
        return from_rows([None] * len(column))
    spec = tensor_of(name, column.type)
    if not isinstance(spec, TensorSpec):
        raise ModelError("FUNCTION_RESULT", f"'{name}' of a Python step's result is no tensor but {column.type}.")
    array, failures = read_tensor(column, replace(spec, nullable=True), spec.dtype)
    for failure in failures or ():
        if failure is not None:
            raise failure
    if not column.null_count or spec.shape:
        return array
    return from_rows(column.to_pylist()) if spec.dtype in OBJECTS else _nulls_in(array, np.asarray(column.is_null()))


def _nulls_in(array: NDArray[Any], is_null: NDArray[np.bool_]) -> NDArray[Any]:
    """Return single values with None where the answer is null, which numpy's own numbers cannot say."""
    return from_rows([None if null else np.asarray(value)[()] for value, null in zip(array, is_null, strict=True)])


def _in_order(frame: Any) -> Any:
    """Return a frame in its rows' order: one that was sorted or grouped still has their numbers as its index."""
    numbers = frame.index.to_numpy()
    is_moved = numbers.dtype.kind in "iu" and (np.diff(numbers) < 0).any()
    return frame.sort_index() if is_moved and (np.sort(numbers) == np.arange(len(numbers))).all() else frame


def _from_cells(array: NDArray[Any]) -> NDArray[Any]:
    """Return a column of objects with None for each of pandas' marks of a missing value."""
    if array.dtype != object or array.ndim != 1:
        return array
    cells = [None if is_missing(cell) else cell for cell in array]
    return _by_row(cells) if any(isinstance(cell, CELLS) for cell in cells) else from_rows(cells)


def _of_series(series: Any) -> NDArray[Any]:
    """Return a pandas Series as an array; one with a mask of its own, which numpy would fill with NaN, as objects."""
    has_mask = hasattr(series.array, "_mask") and bool(series.isna().any())
    array: NDArray[Any] = series.to_numpy(dtype=object) if has_mask else series.to_numpy()
    return array


def _from_values(name: str, value: Any) -> NDArray[Any]:
    """Return what stands in a dict as an array: with its mask, and with rows of different size or null as they are."""
    value = value.to_arrow() if hasattr(value, "to_arrow") else value  # a polars Series
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return _from_arrow(name, value)
    if hasattr(value, "to_numpy") and hasattr(value, "array"):  # a pandas Series
        return _from_cells(_of_series(value))
    try:
        array: NDArray[Any] = np.asanyarray(value)
    except ValueError:  # rows that do not stack
        return _by_row(value)
    return array if isinstance(array, np.ma.MaskedArray) else _from_cells(array)


def _by_row(cells: Any) -> NDArray[Any]:
    return stacked([None if cell is None else np.asarray(cell) for cell in cells])
