"""What ``infer`` is given, as columns that the runner reads as they are: nothing is converted before a model asks."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.tensors.cells import ARROW, BYTES, Column, describe
from lakemill_udfs.tensors.spec import Kind, arrow_tensors, tensor_of


@dataclass(frozen=True, eq=False)
class Given:
    """The data of one call.

    Args:
        form: What it was, and what the result becomes.
        columns: By name.
        kinds: What each holds.
        rows: Rows of each.
        index: The DataFrame's index.
    """

    form: Literal["table", "batch", "pandas", "polars", "dict"]
    columns: dict[str, Column]
    kinds: dict[str, Kind]
    rows: int
    index: Any = None


def given(data: Any) -> Given:
    """Return the columns of a DataFrame of pandas or polars, an Arrow table or batch, or a dict of batches.

    Raises:
        ConfigError: ``INFER_INPUT`` if ``data`` is none of these or two columns have one name, ``INPUT_ROWS`` if its
            columns differ in length.
    """
    if isinstance(data, pa.Table | pa.RecordBatch):
        _refuse_twins(data.schema.names)
        columns = dict(zip(data.schema.names, data.columns, strict=True))
        form: Literal["table", "batch"] = "table" if isinstance(data, pa.Table) else "batch"
        return Given(form, columns, arrow_tensors(data.schema), data.num_rows)
    if _is_polars(data):
        try:
            table = data.to_arrow()
        except Exception as error:  # polars says it with a panic's text or its own classes, by column type
            raise _not_understood("the polars DataFrame", "a column that is no Arrow type", error) from None
        return replace(given(table), form="polars")
    if isinstance(data, Mapping):
        _refuse_twins([str(name) for name in data])
        columns = {str(name): _batch(name, values) for name, values in data.items()}
        return Given("dict", columns, _kinds(columns), _rows(columns))
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        _refuse_twins([str(name) for name in data.columns])
        columns = {str(name): _series(name, series) for name, series in data.items()}
        return Given("pandas", columns, _kinds(columns), len(data), data.index)
    raise ConfigError(
        "INFER_INPUT",
        f"infer takes a DataFrame of pandas or polars, an Arrow table, a dict or a file's path; "
        f"got {type(data).__name__}.",
        hint="a dict maps each input to its batch, rows first: {'x': [[1.0, 2.0]]}",
    )


def _is_polars(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "polars" and type(data).__name__ == "DataFrame"


def _refuse_twins(names: Sequence[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise ConfigError(
            "INFER_INPUT",
            f"two columns have the name '{twins[0]}'.",
            hint="rename one: a name stands for one column.",
        )


def _not_understood(what: str, kind: str, error: Exception | None = None) -> ConfigError:
    return ConfigError(
        "INFER_INPUT",
        f"{what} holds {kind}, which does not become a tensor" + (f" ({type(error).__name__})." if error else "."),
        hint="convert it to numbers, strings, lists or numpy arrays first.",
    )


def _batch(name: Any, values: Any) -> Column:
    if isinstance(values, np.ndarray) and values.ndim:
        return _array(name, values)
    if isinstance(values, (list, *ARROW)):
        return values
    if hasattr(values, "to_arrow") and not hasattr(values, "columns"):  # a polars Series
        return values.to_arrow()
    if hasattr(values, "to_numpy") and hasattr(values, "dtype"):  # a pandas Series
        return _series(name, values)
    if isinstance(values, tuple):
        return list(values)
    if isinstance(values, array.array | memoryview) and memoryview(values).format not in BYTES:
        return np.asarray(values)
    raise ConfigError(
        "INFER_INPUT",
        f"input '{name}': expected a batch, rows first; got one {type(values).__name__}.",
        hint=f"one row is a list of one: {{'{name}': [...]}}",
    )


def _array(name: Any, values: NDArray[Any]) -> Column:
    """Return a numpy array as the runner reads it: masked values as nulls, numbers in this machine's byte order."""
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values) and values.ndim > 1:
            raise ConfigError(
                "INFER_INPUT",
                f"input '{name}': a masked array of {values.ndim} dimensions has masked values.",
                hint="fill them: values.filled(0)",
            )
        values = values if np.ma.is_masked(values) else values.data
    else:
        values = np.asarray(values)  # a matrix has two dimensions, whatever it is reshaped to
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return pa.array(values) if isinstance(values, np.ma.MaskedArray) else values


def _series(name: Any, series: Any) -> Column:
    """Return a pandas column: numpy's as it is, pandas' own types (categories, nullable integers, Arrow) as Arrow."""
    if isinstance(series.dtype, np.dtype):
        return _array(name, series.to_numpy())
    if type(series.dtype).__name__ == "SparseDtype":
        return np.asarray(series)
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _not_understood(f"column '{name}'", f"pandas' {series.dtype}", error) from None


def _kinds(columns: Mapping[str, Column]) -> dict[str, Kind]:
    return {
        name: tensor_of(name, column.type) if isinstance(column, ARROW) else describe(name, column)
        for name, column in columns.items()
    }


def _rows(columns: Mapping[str, Column]) -> int:
    sizes = {name: len(column) for name, column in columns.items()}
    if not sizes:
        raise ConfigError("INFER_INPUT", "the dict has no inputs.", hint="{'x': [[1.0, 2.0]]}")
    (first, rows), *others = sizes.items()
    for name, size in others:
        if size != rows:
            raise ConfigError(
                "INPUT_ROWS",
                f"'{name}': expected {rows} rows, as '{first}' has; got {size}.",
                hint="every input has one entry for each row.",
            )
    return rows


def part(column: Column, start: int, stop: int) -> Column:
    """Return some rows of a column, without a copy of their values."""
    return column.slice(start, stop - start) if isinstance(column, ARROW) else column[start:stop]


def to_arrow(column: Column) -> pa.Array | pa.ChunkedArray:
    """Return a column as Arrow: matrices and more as fixed-shape tensors if all rows are of one size, else lists."""
    if isinstance(column, ARROW):
        return column
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf" and column.ndim > 1 and column.size:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(column))
    cells = list(column)
    if all(isinstance(cell, np.ndarray) and cell.ndim > 1 and cell.shape == cells[0].shape for cell in cells) and cells:
        return to_arrow(np.stack(cells) if len(cells) > 1 else cells[0][np.newaxis])
    try:
        return pa.array([cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _not_understood("a column", "values of more than one type, or of one that Arrow lacks", error) from None


def to_table(data: Any) -> pa.Table:
    """Return data of any of the forms as an Arrow table.

    Raises:
        ConfigError: as ``given``.
    """
    if isinstance(data, pa.Table):
        return data
    return pa.table({name: to_arrow(column) for name, column in given(data).columns.items()})


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without a copy where it is in one chunk."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
