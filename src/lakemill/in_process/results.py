"""The columns of a result as Arrow, pandas or plain Python. Tensors are views of what the model returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill.in_process.dataset import Field
from lakemill.in_process.inputs import Given, one_array, to_arrow
from lakemill.in_process.json_values import plain
from lakemill_udfs.plan import METADATA
from lakemill_udfs.tensors.cells import ARROW
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.ragged import from_rows, is_ragged
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

Output = tuple[TensorSpec, NDArray[Any]]
"""A tensor of every row."""

SIZES_KEPT = 4
TIME = pa.timestamp("us", "UTC")
FACTS = {
    "elapsed": pa.list_(pa.int64()),
    "last_model": pa.struct([("model_name", pa.string()), ("model_sha", pa.string())]),
    "models": METADATA.field("models").type,
}
"""Arrow types of ``metadata``; the others are strings."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a call came to.

    Args:
        given: The data.
        outputs: By name; a challenger's as ``out_<challenger>.<name>``.
        anomaly: The count and each check: one value a row as an Arrow array, or one number for all rows.
        metadata: One value for all rows, by name; also ``time``.
        row_metadata: What has a value for each row instead.
    """

    given: Given
    outputs: Mapping[str, Output]
    anomaly: Mapping[str, Any]
    metadata: Mapping[str, Any]
    row_metadata: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    def formatted(self, fields: Sequence[Field]) -> Any:
        """Return the columns wanted, in order, in the form that the data had."""
        if self.given.form == "pandas":
            import pandas as pd

            columns = {field.name: self._pandas(field) for field in fields}
            return pd.DataFrame(columns, index=self.given.index, copy=False)
        if self.given.form == "polars":
            import polars as pl

            return pl.DataFrame([self._polars(field) for field in fields])
        if self.given.form == "dict":
            return {field.name: self._plain(field) for field in fields}
        arrays = [self._arrow(field) for field in fields]
        schema = pa.schema(
            [
                pa.field(field.name, array.type, metadata=self._field_metadata(field))
                for field, array in zip(fields, arrays, strict=True)
            ]
        )
        if self.given.form == "table":
            return pa.Table.from_arrays(arrays, schema=schema)
        return pa.RecordBatch.from_arrays([one_array(array) for array in arrays], schema=schema)

    def _field_metadata(self, field: Field) -> dict[str, str] | None:
        return _metadata(self._output(field)[0]) if field.part.startswith("out") else None

    def _output(self, field: Field) -> Output:
        return self.outputs[field.key if field.part == "out" else f"{field.part}.{field.key}"]

    def _facts(self, field: Field) -> Sequence[Any]:
        return self.row_metadata.get(field.key) or [self.metadata[field.key]] * self.given.rows

    def _arrow(self, field: Field) -> pa.Array | pa.ChunkedArray:
        if field.part == "in":
            return to_arrow(self.given.columns[field.key])
        if field.part.startswith("out"):
            return tensor_array(*self._output(field))
        if field.part == "anomaly":
            value = self.anomaly[field.key]
            return value if isinstance(value, pa.Array) else _repeated(value, self.given.rows)
        if field.part == "time":
            return pa.repeat(pa.scalar(self.metadata["time"], TIME), self.given.rows)
        return pa.array(self._facts(field), FACTS.get(field.key, pa.string()))

    def _pandas(self, field: Field) -> Any:
        if field.part == "in":
            column = self.given.columns[field.key]
            return column.to_pandas() if isinstance(column, ARROW) else column
        if field.part.startswith("out"):
            return cells(*self._output(field))
        if field.part == "anomaly":
            value = self.anomaly[field.key]
            is_array = isinstance(value, pa.Array)
            return value.to_numpy(zero_copy_only=False) if is_array else np.full(self.given.rows, value, np.int32)
        if field.part == "time":
            import pandas as pd

            now = np.datetime64(self.metadata["time"].replace(tzinfo=None), "us")
            return pd.DatetimeIndex(np.full(self.given.rows, now.view("i8")), dtype=_time_dtype())
        return from_rows(self._facts(field))

    def _polars(self, field: Field) -> Any:
        import polars as pl

        array = self._arrow(field)
        if isinstance(array.type, pa.FixedShapeTensorType):  # polars' own arrays have a shape
            return pl.Series(field.name, one_array(array).to_numpy_ndarray())
        return pl.Series(field.name, array)

    def _plain(self, field: Field) -> Any:
        if field.part == "in":
            return plain(self.given.columns[field.key])
        if field.part.startswith("out"):
            return plain(self._output(field)[1])
        if field.part == "anomaly":
            value = self.anomaly[field.key]
            return value.to_pylist() if isinstance(value, pa.Array) else [value] * self.given.rows
        if field.part == "time":
            return [self.metadata["time"].isoformat()] * self.given.rows
        return list(self._facts(field))


@lru_cache
def _time_dtype() -> Any:
    import pandas as pd

    return pd.DatetimeTZDtype("us", "UTC")


@lru_cache
def _metadata(spec: TensorSpec) -> dict[str, str]:
    return spec.metadata()


# What depends on the number of rows only is made once: a service is asked for one row again and again.
@lru_cache(SIZES_KEPT)
def _repeated(value: int, rows: int) -> pa.Array:
    return pa.array(np.full(rows, value, np.int32))


@lru_cache(SIZES_KEPT)
def _offsets(rows: int, size: int) -> pa.Array:
    return pa.array(np.arange(rows + 1, dtype=np.int32) * size, pa.int32())


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
    if is_ragged(batch, spec) and any(row is None for row in batch):
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
        return pa.ListArray.from_arrays(_offsets(*batch.shape), flat)
    kind = pa.fixed_shape_tensor(flat.type, batch.shape[1:])
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(flat, type=kind.storage_type))


def cells(spec: TensorSpec, batch: NDArray[Any]) -> NDArray[Any]:
    """Return one value a row: numbers and strings as they are, tensors as one numpy array in each cell."""
    return batch if not spec.shape or is_ragged(batch, spec) else from_rows(list(batch))
