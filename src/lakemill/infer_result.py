"""The columns of a result as Arrow, pandas or plain Python. Tensors are views of what the model returned."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill.infer_dataset import Field
from lakemill.infer_input import Given, one_array, to_arrow
from lakemill_udfs.cells import ARROW
from lakemill_udfs.columns import write_tensor
from lakemill_udfs.ragged import from_rows, is_ragged
from lakemill_udfs.tensors import OBJECTS, TensorSpec

Output = tuple[TensorSpec, NDArray[Any]]
"""A tensor of every row."""

TIME = pa.timestamp("us", "UTC")
LAST_MODEL = pa.struct([("model_name", pa.string()), ("model_sha", pa.string())])


def formatted(
    given: Given,
    fields: Sequence[Field],
    outputs: Mapping[str, Output],
    anomaly: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Any:
    """Return the result in the form that the data had.

    Args:
        given: The data.
        fields: The columns wanted, in order.
        outputs: By name.
        anomaly: The count and each check: one value a row as an Arrow array, or one number for all rows.
        metadata: One value for all rows, by name; also ``time``.
    """
    if given.form == "pandas":
        return _pandas(given, fields, outputs, anomaly, metadata)
    if given.form == "dict":
        return {field.name: _plain(given, field, outputs, anomaly, metadata) for field in fields}
    arrays = [_arrow(given, field, outputs, anomaly, metadata) for field in fields]
    schema = pa.schema(
        [
            pa.field(field.name, array.type, metadata=_metadata(outputs[field.key][0]) if field.part == "out" else None)
            for field, array in zip(fields, arrays, strict=True)
        ]
    )
    if given.form == "table":
        return pa.Table.from_arrays(arrays, schema=schema)
    return pa.RecordBatch.from_arrays([one_array(array) for array in arrays], schema=schema)


@lru_cache
def _metadata(spec: TensorSpec) -> dict[str, str]:
    return spec.metadata()


def _arrow(
    given: Given, field: Field, outputs: Mapping[str, Output], anomaly: Mapping[str, Any], metadata: Mapping[str, Any]
) -> pa.Array | pa.ChunkedArray:
    if field.part == "in":
        return to_arrow(given.columns[field.key])
    if field.part == "out":
        return tensor_array(*outputs[field.key])
    if field.part == "anomaly":
        value = anomaly[field.key]
        return value if isinstance(value, pa.Array) else pa.array(np.full(given.rows, value, np.int32))
    if field.part == "time":
        return pa.repeat(pa.scalar(metadata["time"], TIME), given.rows)
    kind = {"elapsed": pa.list_(pa.int64()), "last_model": LAST_MODEL}.get(field.key, pa.string())
    return pa.array([metadata[field.key]] * given.rows, kind)


def tensor_array(spec: TensorSpec, batch: NDArray[Any]) -> pa.Array:
    """Return a tensor as an Arrow array of its own dtype, without a copy of numbers.

    A scalar is a scalar; a vector is a list; more dimensions are a fixed-shape tensor, or ``struct<data, shape>`` where
    one of them is free. Where the output's declaration says how it is stored, it is that.
    """
    if (
        spec.storage != "auto"
        or spec.dtype in OBJECTS
        or (len(spec.shape) > 1 and not spec.is_fixed)
        or 0 in spec.shape
    ):
        return write_tensor(batch, spec)
    if not spec.shape:
        return pa.array(batch)
    if is_ragged(batch, spec):
        rows = [np.asarray(row) for row in batch]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(rows)))
    batch = np.ascontiguousarray(batch)
    flat = pa.array(batch.reshape(-1))
    if len(spec.shape) == 1:
        return pa.ListArray.from_arrays(np.arange(len(batch) + 1, dtype=np.int32) * batch.shape[1], flat)
    kind = pa.fixed_shape_tensor(flat.type, batch.shape[1:])
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(flat, type=kind.storage_type))


def _pandas(
    given: Given,
    fields: Sequence[Field],
    outputs: Mapping[str, Output],
    anomaly: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Any:
    import pandas as pd

    columns: dict[str, Any] = {}
    for field in fields:
        if field.part == "in":
            column = given.columns[field.key]
            columns[field.name] = column.to_pandas() if isinstance(column, ARROW) else column
        elif field.part == "out":
            columns[field.name] = cells(*outputs[field.key])
        elif field.part == "anomaly":
            value = anomaly[field.key]
            is_array = isinstance(value, pa.Array)
            columns[field.name] = (
                value.to_numpy(zero_copy_only=False) if is_array else np.full(given.rows, value, np.int32)
            )
        elif field.part == "time":
            now = np.datetime64(metadata["time"].replace(tzinfo=None), "us")
            columns[field.name] = pd.DatetimeIndex(np.full(given.rows, now)).tz_localize("UTC")
        else:
            columns[field.name] = from_rows([metadata[field.key]] * given.rows)
    return pd.DataFrame(columns, index=given.index, copy=False)


def cells(spec: TensorSpec, batch: NDArray[Any]) -> NDArray[Any]:
    """Return one value a row: numbers and strings as they are, tensors as one numpy array in each cell."""
    return batch if not spec.shape or is_ragged(batch, spec) else from_rows(list(batch))


def _plain(
    given: Given, field: Field, outputs: Mapping[str, Output], anomaly: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Any:
    if field.part == "in":
        return plain(given.columns[field.key])
    if field.part == "out":
        return plain(outputs[field.key][1])
    if field.part == "anomaly":
        value = anomaly[field.key]
        return value.to_pylist() if isinstance(value, pa.Array) else [value] * given.rows
    value = metadata[field.part if field.part == "time" else field.key]
    return [value.isoformat() if field.part == "time" else value] * given.rows


def plain(values: Any) -> Any:
    """Return values as JSON holds them: lists for arrays, ISO 8601 for dates, base64 for bytes."""
    if isinstance(values, ARROW):
        values = values.to_pylist()
    elif isinstance(values, np.ndarray | np.generic):
        is_plain = values.dtype.kind in "biufU"
        values = values.tolist()
        if is_plain:
            return values
    if isinstance(values, list | tuple):
        return [value if type(value) in (float, int, str, bool) else plain(value) for value in values]
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, bytes | bytearray | memoryview):
        return base64.b64encode(values).decode()
    return values.isoformat() if isinstance(values, dt.date | dt.time) else values
