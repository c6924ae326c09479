"""What ``infer`` is given, as columns that the runner reads as they are: nothing is converted before a model asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.tensors.cells import ARROW, Column, describe
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

    form: Literal["table", "batch", "pandas", "dict"]
    columns: dict[str, Column]
    kinds: dict[str, Kind]
    rows: int
    index: Any = None


def given(data: Any) -> Given:
    """Return the columns of a DataFrame, an Arrow table or batch, or a dict from each input to its batch.

    Raises:
        ConfigError: ``INFER_INPUT`` if ``data`` is none of these, ``INPUT_ROWS`` if its columns differ in length.
    """
    if isinstance(data, pa.Table | pa.RecordBatch):
        columns = dict(zip(data.schema.names, data.columns, strict=True))
        form: Literal["table", "batch"] = "table" if isinstance(data, pa.Table) else "batch"
        return Given(form, columns, arrow_tensors(data.schema), data.num_rows)
    if isinstance(data, Mapping):
        columns = {str(name): _batch(name, values) for name, values in data.items()}
        return Given("dict", columns, _kinds(columns), _rows(columns))
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        columns = {str(name): _series(series) for name, series in data.items()}
        return Given("pandas", columns, _kinds(columns), len(data), data.index)
    raise ConfigError(
        "INFER_INPUT",
        f"infer takes a pandas DataFrame, an Arrow table, a dict or a file's path; got {type(data).__name__}.",
        hint="a dict maps each input to its batch, rows first: {'x': [[1.0, 2.0]]}",
    )


def _batch(name: Any, values: Any) -> Column:
    if isinstance(values, (list, *ARROW)) or (isinstance(values, np.ndarray) and values.ndim):
        return values
    if hasattr(values, "to_numpy"):  # a pandas Series
        return _series(values)
    if isinstance(values, tuple):
        return list(values)
    raise ConfigError(
        "INFER_INPUT",
        f"input '{name}': expected a batch, rows first; got one {type(values).__name__}.",
        hint=f"one row is a list of one: {{'{name}': [...]}}",
    )


def _series(series: Any) -> Column:
    """Return a pandas column: numpy's as it is, pandas' own types (categories, nullable integers, Arrow) as Arrow."""
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    return pa.array(series, from_pandas=True)


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
    return pa.array([cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells])


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
