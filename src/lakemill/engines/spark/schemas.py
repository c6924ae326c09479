"""Spark schemas from and to tensors. A column's metadata is the one source of its tensor's dtype and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from lakemill_udfs.plan import ERROR, METADATA, TASK, PredictPlan
from lakemill_udfs.tensors.spec import Kind, tensor_of
from lakemill_udfs.worker import DOT

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType, StructField, StructType


def spark_fields(schema: StructType) -> dict[str, StructField]:
    """Return the columns of a Spark table and, as ``out.label``, the fields of its structs.

    That is also what ``infer`` calls a result, so a next pipeline reads ``out.label`` in either place.
    """
    from pyspark.sql.types import StructType

    fields = {field.name: field for field in schema}
    for field in schema:
        if isinstance(field.dataType, StructType):
            fields |= {f"{field.name}.{inner.name}": inner for inner in field.dataType if inner.name}
    return fields | {field.name: field for field in schema}


def select(rows: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return these columns for a worker; ``out.label`` is the field of a struct, unless a column is called so."""
    from pyspark.sql import functions as fn

    def column(name: str) -> Column:
        parts = [name] if name in rows.columns else name.split(".", 1)
        return fn.col(".".join(f"`{part.replace('`', '``')}`" for part in parts)).alias(name.replace(".", DOT))

    return rows.select(*(column(name) for name in names))


def spark_tensors(schema: StructType) -> dict[str, Kind]:
    """Return what each column of a Spark table holds, and each field of its structs."""
    return {
        name: tensor_of(name, arrow_type(field.dataType), field.metadata)
        for name, field in spark_fields(schema).items()
    }


def arrow_type(kind: DataType) -> pa.DataType:
    """Return a Spark type in Arrow's terms; ``null`` for one that Arrow has not."""
    from pyspark.errors import PySparkTypeError
    from pyspark.sql.pandas.types import to_arrow_type

    try:
        return to_arrow_type(kind, timezone="UTC")
    except PySparkTypeError:
        return pa.null()  # a type without an Arrow form is no tensor


def result_schema(plan: PredictPlan, source: StructType) -> StructType:
    """Return the Spark schema of what ``predict_batches`` yields for a plan.

    Args:
        plan: Says which columns there are.
        source: The source's schema; carried columns keep their type and metadata.
    """
    from pyspark.sql.types import StructField, StructType, TimestampType

    known = spark_fields(source)

    def column(name: str) -> StructField:
        return StructField(name, known[name].dataType, known[name].nullable, known[name].metadata)

    fields = [column(name) for name in plan.passthrough]
    parts: dict[str, DataType] = {
        "time": TimestampType(),
        "in": StructType([column(name) for name in plan.input_columns]),
        "out": _struct(plan.out_type),
        "anomaly": _spark_type(plan.anomaly_type),
    }
    fields += [StructField(part, parts[part]) for part in plan.parts]
    fields += [StructField("error", _spark_type(ERROR)), StructField("metadata", _spark_type(METADATA))]
    if plan.task_metrics:
        fields.append(StructField("_task", _spark_type(TASK)))
    return StructType(fields)


def lost_fields(old: StructType, new: StructType) -> list[str]:
    """Return what keeps rows of ``new`` out of a table of ``old``: only structs may gain fields, nothing may go.

    Args:
        old: What is there.
        new: What is to come.
    """
    extra = [f"{name} is new" for name in new.names if name not in old.names]
    return [*extra, *_lost(old, new, "")]


def _lost(old: StructType, new: StructType, prefix: str) -> list[str]:
    from pyspark.sql.types import StructType

    lost = []
    for field in old:
        name, kind = prefix + field.name, new[field.name].dataType if field.name in new.names else None
        if kind is None:
            lost.append(f"{name} is gone")
        elif isinstance(field.dataType, StructType) and isinstance(kind, StructType):
            lost += _lost(field.dataType, kind, f"{name}.")
        elif kind.simpleString() != field.dataType.simpleString():
            lost.append(f"{name} was {field.dataType.simpleString()}, is {kind.simpleString()}")
    return lost


def _spark_type(kind: pa.DataType) -> DataType:
    from pyspark.sql.pandas.types import from_arrow_type

    return from_arrow_type(kind)


def _struct(kind: pa.StructType) -> StructType:
    """Return a struct whose fields keep their Arrow metadata (the tensor's dtype and shape)."""
    from pyspark.sql.types import StructField, StructType

    def field(inner: pa.Field) -> StructField:
        metadata = {key.decode(): value.decode() for key, value in (inner.metadata or {}).items()}
        return StructField(inner.name, _spark_type(inner.type), nullable=True, metadata=metadata)

    return StructType([field(inner) for inner in kind])
