"""Spark schemas from and to tensors. A column's metadata is the one source of its tensor's dtype and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakemill.engines.sql import quoted, sql_text
from lakemill_udfs.plan import ERROR, METADATA, PredictPlan
from lakemill_udfs.worker import PLACE

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


def column_of(rows: DataFrame, name: str) -> Column:
    """Return a column; ``out.label`` is the field of a struct, unless a column is called so."""
    from pyspark.sql import functions as fn

    parts = [name] if name in rows.columns else name.split(".", 1)
    return fn.col(".".join(map(quoted, parts)))


def select(rows: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return these columns for a worker, named by their place."""
    return rows.select(*(column_of(rows, name).alias(PLACE.format(place)) for place, name in enumerate(names)))


def arrow_schema(schema: StructType) -> pa.Schema:
    """Return a Spark schema in Arrow's terms; columns and fields of structs keep their metadata."""
    return pa.schema([_arrow_field(field) for field in schema])


def _arrow_field(field: StructField) -> pa.Field:
    from pyspark.sql.types import StructType

    kind = (
        pa.struct([_arrow_field(inner) for inner in field.dataType])
        if isinstance(field.dataType, StructType)
        else arrow_type(field.dataType)
    )
    texts = {key: value for key, value in field.metadata.items() if isinstance(value, str)}
    return pa.field(field.name, kind, field.nullable, metadata=texts or None)


def spark_struct(schema: pa.Schema | pa.StructType) -> StructType:
    """Return columns in Spark's terms; they and the fields of structs keep their metadata."""
    from pyspark.sql.types import StructField, StructType

    def kind(field: pa.Field) -> DataType:
        return spark_struct(field.type) if pa.types.is_struct(field.type) else _spark_type(field.type)

    def metadata(field: pa.Field) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}

    return StructType([StructField(field.name, kind(field), field.nullable, metadata(field)) for field in schema])


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
        "out": spark_struct(plan.out_type),
        "anomaly": _spark_type(plan.anomaly_type),
    }
    for part in plan.parts:
        fields += [StructField(part, parts[part])] if plan.challengers is None else []
        if part == "out":
            fields += [StructField(name, spark_struct(kind)) for name, kind in plan.branch_types.items()]
    fields += [StructField("error", _spark_type(ERROR)), StructField("metadata", _spark_type(plan.metadata_type))]
    if plan.task_metrics:
        fields.append(StructField("_task", _spark_type(plan.task_type)))
    return StructType(fields)


def with_constants(rows: DataFrame, plan: PredictPlan) -> DataFrame:
    """Return what a light plan's workers made, with the ``metadata`` of a plan that is not light."""
    from pyspark.sql import functions as fn

    constant, own = plan.constant_metadata, plan.metadata_type.names

    def part(field: pa.Field) -> str:
        name = field.name
        return f"metadata.{name}" if name in own else literal(constant.get(name), _spark_type(field.type))

    # One text: a Column for each of some thirty values takes calls of Java's for each, a tenth of a second a batch.
    parts = (f"{sql_text(field.name)}, {part(field)}" for field in METADATA)
    return rows.withColumn("metadata", fn.expr(f"named_struct({', '.join(parts)})"))


def literal(value: Any, kind: DataType) -> str:
    """Return SQL of one value: a text or number, or dicts and lists of such."""
    from pyspark.sql.types import ArrayType, StructType

    if value is None:
        sql = "NULL"
    elif isinstance(kind, StructType):
        parts = (f"{sql_text(part.name)}, {literal(value[part.name], part.dataType)}" for part in kind)
        sql = f"named_struct({', '.join(parts)})"
    elif isinstance(kind, ArrayType):
        sql = f"array({', '.join(literal(one, kind.elementType) for one in value)})"
    else:
        sql = sql_text(value) if isinstance(value, str) else str(value)
    return f"CAST({sql} AS {kind.simpleString()})"


def _spark_type(kind: pa.DataType) -> DataType:
    from pyspark.sql.pandas.types import from_arrow_type

    return from_arrow_type(kind)
