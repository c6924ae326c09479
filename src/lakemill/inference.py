"""In-process inference: the same inner loop as on Spark, and bad input raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lakemill.planning import make_plan
from lakemill.resolving import Resolved
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.plan import RESERVED
from lakemill_udfs.tensors import arrow_tensors
from lakemill_udfs.worker import predict_batches, predict_whole


def infer(resolved: Resolved, data: Any) -> Any:
    """Score ``data`` and return the same kind of thing with ``time``, ``out.<name>``, ``anomaly.<check>`` added.

    Args:
        resolved: The pipeline with its models found.
        data: ``pandas.DataFrame``, ``pyarrow.Table`` or ``RecordBatch``, or a dict from each input to its batch, rows
            first.

    Raises:
        RowError: a row is bad; names the row, the stage and the reason.
        ConfigError: ``INFER_INPUT`` if ``data`` is none of these.
    """
    table = to_table(data)
    light = [
        name
        for name, kind in zip(table.column_names, table.schema.types, strict=True)
        if not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind) and name not in RESERVED
    ]
    plan = make_plan(resolved, arrow_tensors(table.schema), passthrough=light)
    parts = list(predict_batches(plan, table.to_batches()))
    result = pa.Table.from_batches(parts) if parts else predict_whole(plan, table)  # the columns need no row
    _raise_first(result)
    return _like(data, flat(result.drop_columns(["error", "metadata"])))


def to_table(data: Any) -> pa.Table:
    """Return Arrow, pandas or a dict of batches as an Arrow table.

    Raises:
        ConfigError: ``INFER_INPUT`` if it is none of these.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, dict):
        return pa.table({name: _column(value) for name, value in data.items()})
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return pa.table({str(name): _column(data[name].to_numpy()) for name in data.columns})
    raise ConfigError(
        "INFER_INPUT", f"infer takes a pandas DataFrame, an Arrow table or a dict; got {type(data).__name__}."
    )


def _column(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.ndim < 2:
            return pa.array(values)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    cells = list(values)
    if cells and isinstance(cells[0], np.ndarray) and cells[0].ndim > 1:
        return _column(np.stack(cells))
    return pa.array(cells)


def flat(table: pa.Table, separator: str = ".") -> pa.Table:
    """Return a table whose struct columns ``time, in, out, anomaly`` are one column a field: ``out.label``."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        if name in RESERVED and pa.types.is_struct(column.type):
            columns |= {
                f"{name}{separator}{field.name}": part
                for field, part in zip(column.type, column.combine_chunks().flatten(), strict=True)
            }
        else:
            columns[name] = column
    return pa.table(columns)


def _raise_first(result: pa.Table) -> None:
    if "error" in result.column_names and result["error"].null_count < result.num_rows:
        row = next(index for index, error in enumerate(result["error"]) if error.is_valid)
        error = result["error"][row].as_py()
        raise RowError(error["code"], f"row {row}, {error['stage']}: {error['message']}")


def _like(data: Any, result: pa.Table) -> Any:
    if isinstance(data, pa.Table):
        return result
    if isinstance(data, pa.RecordBatch):
        return result.combine_chunks().to_batches()[0]
    return result.to_pydict() if isinstance(data, dict) else result.to_pandas()
