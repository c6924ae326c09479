"""``deduplicate: content``: rows with the same input are scored once, and each gets its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps import ImageStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column, DataFrame

    from lakemill_udfs.plan import PredictPlan

DIGEST = "_digest"


def score_once(
    rows: DataFrame, plan: PredictPlan, key: Sequence[str], score: Callable[[DataFrame], DataFrame]
) -> DataFrame:
    """Return a prediction for each row; of rows whose input is the same, one is scored.

    Only keys and digests are grouped: the inputs themselves, which may be images, go once through the one pass.

    Args:
        rows: Of the source.
        plan: Says which columns the pipeline reads.
        key: Columns that tell rows apart.
        score: Scores what it is given.

    Raises:
        ConfigError: ``DEDUPLICATE_COLUMNS`` if the pipeline reads something else than one column of bytes or text.
    """
    from pyspark.sql import functions as fn

    own_key = fn.struct(*key)
    light = rows.select(*plan.passthrough, _digest(rows, plan).alias(DIGEST))
    # Without content there is nothing to compare: such a row stands for itself.
    light = light.withColumn(DIGEST, fn.coalesce(DIGEST, fn.concat(fn.lit("key "), fn.to_json(own_key))))
    groups = light.groupBy(DIGEST).agg(fn.min(own_key).alias("_first"))
    same_key = [fn.col(name).eqNullSafe(fn.col(f"_first.{name}")) for name in key]
    scored = score(rows.join(groups.select("_first"), same_key, "left_semi"))
    renamed = {name: f"_scored_{name}" for name in plan.passthrough}
    scored = scored.withColumnsRenamed(renamed)
    scored_key = [fn.col(f"_scored_{name}").eqNullSafe(fn.col(f"_first.{name}")) for name in key]
    each = light.join(groups, DIGEST).join(scored, scored_key)
    names = [name for name in scored.columns if name not in renamed.values()]
    is_scored = own_key.eqNullSafe(fn.col("_first"))  # a task's measures stand in one row only
    columns = [fn.when(is_scored, fn.col(name)).alias(name) if name == "_task" else fn.col(name) for name in names]
    return each.select(*plan.passthrough, *columns)


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
