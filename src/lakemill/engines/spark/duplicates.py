"""``deduplicate: content``: rows with the same input are scored once, and each gets its row.

What the job scored in an earlier commit is known by the digest in the predictions: ``metadata.input_sha256``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lakemill.engines.digests import compared
from lakemill.engines.spark.schemas import arrow_schema, column_of, literal
from lakemill.engines.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructField, StructType

    from lakemill_udfs.plan import PredictPlan

DIGEST, GROUP, FIRST, SCORED = "__digest", "__group", "__first", "__scored_"
KNOWN = "__known_"
"""Before the names of an earlier prediction's columns."""


def score_once(
    rows: DataFrame,
    plan: PredictPlan,
    key: Sequence[str],
    score: Callable[[DataFrame], DataFrame],
    earlier: DataFrame | None = None,
) -> DataFrame:
    """Return a prediction for each row; of rows whose input is the same, one is scored, or none if that was done.

    Only keys and digests are grouped: the inputs themselves, which may be images, go once through the one pass.

    Args:
        rows: Of the source.
        plan: Says which columns the pipeline reads.
        key: Columns that tell rows apart.
        score: Scores what it is given.
        earlier: The output, from which results of the job's same pipeline version are taken over; None for none.

    Raises:
        ConfigError: ``DEDUPLICATE_COLUMNS`` if the pipeline reads something else than one column of bytes or text.
    """
    from pyspark.sql import functions as fn

    carried = [fn.col(quoted(name)) for name in plan.passthrough]
    own_key = fn.struct(*(fn.col(quoted(name)).alias(f"k{place}") for place, name in enumerate(key)))
    light = rows.select(*carried, _digest(rows, plan).alias(DIGEST))
    known = None if earlier is None else _known(earlier, light, plan)
    todo = light if known is None else light.join(known, _is_known(), "left_anti")
    # Without content there is nothing to compare: such a row stands for itself.
    todo = todo.withColumn(GROUP, fn.coalesce(DIGEST, fn.concat(fn.lit("key "), fn.to_json(own_key))))
    groups = todo.groupBy(GROUP).agg(fn.min(own_key).alias(FIRST))
    firsts = [fn.col(f"{FIRST}.k{place}") for place in range(len(key))]
    same_key = [fn.col(quoted(name)).eqNullSafe(first) for name, first in zip(key, firsts, strict=True)]
    scored = score(rows.join(groups.select(FIRST), same_key, "left_semi"))
    renamed = {name: f"{SCORED}{name}" for name in plan.passthrough}
    scored = scored.withColumnsRenamed(renamed)
    scored_key = [fn.col(quoted(renamed[name])).eqNullSafe(first) for name, first in zip(key, firsts, strict=True)]
    each = todo.join(groups, GROUP).join(scored, scored_key)
    names = [name for name in scored.columns if name not in renamed.values()]
    is_scored = own_key.eqNullSafe(fn.col(FIRST))  # a task's measures stand in one row only
    own = {
        "_task": fn.when(is_scored, fn.col("_task")).alias("_task"),
        "metadata": fn.col("metadata").withField("input_sha256", fn.col(DIGEST)).alias("metadata"),
    }
    fresh = each.select(*carried, *(own.get(name, fn.col(name)) for name in names))
    return fresh if known is None else fresh.unionByName(_copies(light.join(known, _is_known()), fresh.schema, plan))


def _known(earlier: DataFrame, light: DataFrame, plan: PredictPlan) -> DataFrame:
    """Return one earlier result for each digest that the rows have, its columns renamed."""
    from pyspark.sql import functions as fn

    results = earlier.where(
        (fn.col("metadata.job") == plan.provenance.job)
        & (fn.col("metadata.pipeline_version") == plan.pipeline.version)
        & fn.col("error").isNull()
    ).withColumnsRenamed({name: f"{KNOWN}{name}" for name in earlier.columns})
    results = results.withColumn(f"{KNOWN}{DIGEST}", fn.col(f"{KNOWN}metadata.input_sha256"))
    return results.join(light.select(DIGEST), _is_known(), "left_semi").dropDuplicates([f"{KNOWN}{DIGEST}"])


def _is_known() -> Column:
    from pyspark.sql import functions as fn

    return fn.col(DIGEST) == fn.col(f"{KNOWN}{DIGEST}")


def _copies(rows: DataFrame, schema: StructType, plan: PredictPlan) -> DataFrame:
    """Return rows with the results known for them: when and by what they were scored stays, the provenance is new."""
    from pyspark.sql import functions as fn
    from pyspark.sql.types import StructType

    provenance = asdict(plan.provenance)

    def column(field: StructField) -> Column:
        if field.name in plan.passthrough:
            return fn.col(quoted(field.name))
        if field.name in ("error", "_task"):
            return fn.lit(None).cast(field.dataType).alias(field.name)
        if not isinstance(field.dataType, StructType):
            return fn.col(f"{KNOWN}{field.name}").alias(field.name)
        own = provenance if field.name == "metadata" else {}
        parts = [
            (
                fn.expr(literal(own[part.name], part.dataType))
                if part.name in own
                else fn.col(f"{KNOWN}{field.name}")[part.name]
            ).alias(part.name)
            for part in field.dataType
        ]  # by name: the table's structs may have more fields, in another order
        return fn.struct(*parts).alias(field.name)

    return rows.select(*(column(field) for field in schema))


def _digest(rows: DataFrame, plan: PredictPlan) -> Column:
    from pyspark.sql import functions as fn

    by = compared(plan, arrow_schema(rows.schema))
    content = fn.sha2(column_of(rows, by.column), 256)
    if not by.beside:
        return content
    beside = fn.struct(*(column_of(rows, name).alias(f"c{place}") for place, name in enumerate(by.beside)))
    return fn.sha2(fn.concat(content, fn.to_json(beside)), 256)
