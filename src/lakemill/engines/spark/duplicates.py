"""``deduplicate: content``: rows with the same input are scored once, and each gets its row.

What the job scored in an earlier commit is known by the digest in the predictions: ``metadata.input_sha256``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import ImageStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructField, StructType

    from lakemill_udfs.plan import PredictPlan

DIGEST = "_digest"
KNOWN = "_known_"
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

    own_key = fn.struct(*key)
    light = rows.select(*plan.passthrough, _digest(rows, plan).alias(DIGEST))
    known = None if earlier is None else _known(earlier, light, plan)
    todo = light if known is None else light.join(known, _is_known(), "left_anti")
    # Without content there is nothing to compare: such a row stands for itself.
    todo = todo.withColumn("_group", fn.coalesce(DIGEST, fn.concat(fn.lit("key "), fn.to_json(own_key))))
    groups = todo.groupBy("_group").agg(fn.min(own_key).alias("_first"))
    same_key = [fn.col(name).eqNullSafe(fn.col(f"_first.{name}")) for name in key]
    scored = score(rows.join(groups.select("_first"), same_key, "left_semi"))
    renamed = {name: f"_scored_{name}" for name in plan.passthrough}
    scored = scored.withColumnsRenamed(renamed)
    scored_key = [fn.col(f"_scored_{name}").eqNullSafe(fn.col(f"_first.{name}")) for name in key]
    each = todo.join(groups, "_group").join(scored, scored_key)
    names = [name for name in scored.columns if name not in renamed.values()]
    is_scored = own_key.eqNullSafe(fn.col("_first"))  # a task's measures stand in one row only
    own = {
        "_task": fn.when(is_scored, fn.col("_task")).alias("_task"),
        "metadata": fn.col("metadata").withField("input_sha256", fn.col(DIGEST)).alias("metadata"),
    }
    fresh = each.select(*plan.passthrough, *(own.get(name, fn.col(name)) for name in names))
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
            return fn.col(field.name)
        if field.name in ("error", "_task"):
            return fn.lit(None).cast(field.dataType).alias(field.name)
        if not isinstance(field.dataType, StructType):
            return fn.col(f"{KNOWN}{field.name}").alias(field.name)
        own = provenance if field.name == "metadata" else {}
        parts = [
            (
                fn.lit(own[part.name]).cast(part.dataType)
                if part.name in own
                else fn.col(f"{KNOWN}{field.name}")[part.name]
            ).alias(part.name)
            for part in field.dataType
        ]  # by name: the table's structs may have more fields, in another order
        return fn.struct(*parts).alias(field.name)

    return rows.select(*(column(field) for field in schema))


def _digest(rows: DataFrame, plan: PredictPlan) -> Column:
    from pyspark.sql import functions as fn
    from pyspark.sql.types import BinaryType, StringType

    # An image step reads its file's path only where the row has no content.
    paths = {step.path_column for step in plan.pipeline.steps if isinstance(step, ImageStep)}
    read = {*plan.wiring.raw_columns, *(column.spec.name for column in plan.wiring.columns)} - paths
    names = [name for name in plan.source_columns if name in read]
    if len(names) != 1 or not isinstance(rows.schema[names[0]].dataType, BinaryType | StringType):
        raise ConfigError(
            "DEDUPLICATE_COLUMNS",
            f"deduplicate: content needs a pipeline that reads one column of bytes or text; it reads: "
            f"{', '.join(names)}.",
            hint="leave deduplicate out.",
        )
    if names == ["content"] and "sha256" in rows.columns:
        return fn.col("sha256")  # ingest's; computing it would read every image once more
    return fn.sha2(fn.col(names[0]), 256)
