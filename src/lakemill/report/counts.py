"""What Spark counts for a report, in three jobs: totals, groups of rows, and numeric outputs in bins.

Each function takes the narrow rows of ``Fields.narrow`` and brings back a bounded number of counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 -- the name that every Spark user knows

from lakemill.report.fields import Fields, column
from lakemill.report.layout import BINS
from lakemill.report.values import Count, Histogram, Named, Totals

LARGEST_GROUP = 1000  # counts of one kind that come back, however many there are


def totals(rows: DataFrame, fields: Fields) -> tuple[Totals, tuple[Named, ...], tuple[Histogram, ...]]:
    """Return the totals, the rows that each check flagged, and how the numeric outputs are distributed."""
    judged = F.col("predicted").isNotNull() & F.col("truth").isNotNull()
    counts = {
        "rows": F.count("*"),
        "errors": F.count("error"),
        "flagged": F.count_if(column("anomaly", "count") > 0) if fields.checks else F.lit(0),
        "judged": F.count_if(judged),
        "right": F.count_if(judged & ~F.col("wrong")),
        "first": F.min("time"),
        "last": F.max("time"),
    }
    checks = [F.count_if(column("anomaly", name)) for name in fields.checks]
    numbers = [stat for name, truth in fields.numbers for stat in _statistics(name, truth)]
    row = list(rows.agg(*(value.alias(name) for name, value in counts.items()), *checks, *numbers).collect()[0])
    at = len(counts) + len(checks)
    named = tuple(Named(name, count) for name, count in zip(fields.checks, row[len(counts) : at], strict=True))
    stats = {name: row[at + 6 * place : at + 6 * (place + 1)] for place, (name, _) in enumerate(fields.numbers)}
    return Totals(**dict(zip(counts, row, strict=False))), named, _histograms(rows, stats)


def _statistics(name: str, truth: str | None) -> list[Column]:
    """Return low, high, mean, mean absolute error, finite rows and all rows of one numeric output."""
    value = column("out", name).cast("double")
    finite = F.when(F.abs(value) < math.inf, value)  # Spark orders NaN above infinity
    error = F.abs(finite - column("carried", truth)) if truth else F.lit(None).cast("double")
    return [F.min(finite), F.max(finite), F.avg(finite), F.avg(error), F.count(finite), F.count(value)]


def _histograms(rows: DataFrame, stats: Mapping[str, list[Any]]) -> tuple[Histogram, ...]:
    """Count the finite values of each number in ``BINS`` equal bins between its extremes."""
    known = {name: values for name, values in stats.items() if values[4] > 0}
    if not known:
        return ()
    bins = [
        F.struct(F.lit(name).alias("name"), _bin(column("out", name).cast("double"), low, high).alias("bin"))
        for name, (low, high, *_) in known.items()
    ]
    placed = rows.select(F.explode(F.array(*bins)).alias("at")).where("at.bin IS NOT NULL")
    found = {(row["at"]["name"], row["at"]["bin"]): row["count"] for row in placed.groupBy("at").count().collect()}
    return tuple(
        Histogram(name, low, high, mean, tuple(found.get((name, at), 0) for at in range(BINS)), every - finite, error)
        for name, (low, high, mean, error, finite, every) in known.items()
    )


def _bin(value: Column, low: float, high: float) -> Column:
    place = F.floor((value - low) / ((high - low) / BINS or 1.0)).cast("int")
    return F.when(F.abs(value) < math.inf, F.least(place, F.lit(BINS - 1)))


def groups(rows: DataFrame) -> dict[str, list[Count]]:
    """Count rows by pair of truth and label, by label, by score, by error and by model, in one pass.

    Returns:
        The counts of each kind, mistakes and then the most frequent first, at most ``LARGEST_GROUP`` of each.
    """
    scored = F.col("predicted").isNotNull()
    step = F.when(F.col("score").between(0, 1), F.least(F.floor(F.col("score") * BINS), F.lit(BINS - 1)))
    nothing = F.lit(None)
    kinds = {
        "pairs": (F.when(scored, F.col("truth")), F.col("predicted")),
        "labels": (F.col("predicted"), nothing),
        "scores": (F.when(scored, step), nothing),
        "errors": (F.col("error.stage"), F.col("error.code")),
        "models": (F.to_json(F.struct("metadata.pipeline", "metadata.pipeline_version", "metadata.models")), nothing),
    }
    tags = [
        F.struct(F.lit(kind).alias("kind"), one.cast("string").alias("one"), two.cast("string").alias("two"))
        for kind, (one, two) in kinds.items()
    ]
    tagged = rows.select(F.explode(F.array(*tags)).alias("tag"), "wrong", "error.message", "key")
    counted = (
        tagged.where("tag.one IS NOT NULL")
        .groupBy("tag.kind", "tag.one", "tag.two")
        .agg(
            F.count("*").alias("rows"), F.count_if("wrong").alias("wrong"), F.min("message"), F.min("key"), F.max("key")
        )
    )
    order = Window.partitionBy("kind").orderBy(F.col("wrong").desc(), F.col("rows").desc(), "one", "two")
    kept = counted.withColumn("place", F.row_number().over(order)).where(F.col("place") <= LARGEST_GROUP).collect()
    found: dict[str, list[Count]] = {kind: [] for kind in kinds}
    for kind, *count, _ in sorted(kept, key=lambda row: row["place"]):
        found[kind].append(Count(*count))
    return found
