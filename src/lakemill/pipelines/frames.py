"""A pipeline on a Spark DataFrame, batch or stream: one lazy pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

from lakemill.engines.schemas import tensors_of
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved
from lakemill_udfs.files import RowFiles
from lakemill_udfs.plan import RESERVED
from lakemill_udfs.worker import predict_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def score(
    df: DataFrame, resolved: Resolved, *, columns: Sequence[str] | None = None, allowed_roots: Sequence[str] = ()
) -> DataFrame:
    """Score a DataFrame with a resolved pipeline; see ``Pipeline.transform``."""
    from lakemill.engines.spark.errors import reported
    from lakemill.engines.spark.schemas import arrow_schema, result_schema, select
    from lakemill.engines.spark.session import task_threads
    from lakemill.engines.spark.shipping import ship

    schema = arrow_schema(df.schema)
    carried = carried_columns(schema) if columns is None else list(columns)
    plan = make_plan(resolved, tensors_of(schema), passthrough=carried, threads=task_threads(df.sparkSession))
    parts = tuple(part for part in plan.parts if part != "in")
    plan = ship(df.sparkSession, replace(plan, parts=parts, files=RowFiles(tuple(allowed_roots))))
    return select(df, plan.source_columns).mapInArrow(
        reported(functools.partial(predict_batches, plan)), result_schema(plan, df.schema)
    )


def carried_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that ``transform`` carries by itself: all that are not binary, nor an earlier result's own."""
    return [field.name for field in schema if not types.is_binary(field.type) and field.name not in RESERVED]
