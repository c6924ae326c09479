"""Gathering a report from a predictions table: Spark counts, and only what is shown comes to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- the name that every Spark user knows

from lakemill.engines import table_names
from lakemill.engines.spark import tables
from lakemill.report import layout
from lakemill.report.counts import groups, totals
from lakemill.report.fields import Fields, column, key_text
from lakemill.report.values import Card, Report, Run, Totals

STAGES = {
    "scan_wait_seconds": "wait for the scan",
    "decode_seconds": "decode",
    "preprocess_seconds": "preprocess",
    "predict_seconds": "predict",
    "format_seconds": "format",
    "model_load_seconds": "load models",
}
SHOWN_CARDS = 18  # two full rows at 1280 pixels
SHOWN_RUNS = 8
LARGEST_IMAGE_BYTES = 32 * 2**20  # no larger one is fetched for a thumbnail


def collect(spark: SparkSession, predictions: str, key: Sequence[str], *, title: str, source: str | None) -> Report:
    """Gather the report of a predictions table, without thumbnails.

    Args:
        spark: The session.
        predictions: The predictions table.
        key: Its key columns.
        title: Name of the job.
        source: Name of the source table.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    frame = tables.read(spark, predictions)
    fields = Fields.of(frame.schema, key)
    rows = fields.narrow(frame)
    counts, checks, histograms = totals(rows, fields)
    counted = groups(rows)
    return Report(
        title=title,
        table=predictions,
        source=source,
        totals=counts,
        **_cards(rows, fields),
        confusion=layout.confusion(counted["pairs"]),
        labels=layout.labels(counted["labels"]),
        scores=layout.scores(counted["scores"]),
        histograms=histograms,
        errors=layout.errors(counted["errors"]),
        checks=checks,
        runs=_runs(spark, predictions),
        models=layout.models(counted["models"]),
    )


def count_results(spark: SparkSession, predictions: str, key: Sequence[str]) -> Totals:
    """Return a predictions table's totals alone.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    frame = tables.read(spark, predictions)
    fields = Fields.of(frame.schema, key)
    return totals(fields.narrow(frame), fields)[0]


def contents(
    spark: SparkSession, source: str, key: Sequence[str], image_column: str, keys: Sequence[str]
) -> dict[str, bytes]:
    """Return the encoded images of the rows that are shown, by key; empty where the source has none.

    Args:
        spark: The session.
        source: The source table.
        key: Key columns.
        image_column: Binary column with encoded images.
        keys: Texts of the wanted keys, as on the cards.
    """
    if not keys or not tables.exists(spark, source):
        return {}
    frame = tables.read(spark, source)
    if dict(frame.dtypes).get(image_column) != "binary" or not set(key) <= set(frame.columns):
        return {}
    content = column(image_column)
    wanted = frame.where(key_text(key).isin(list(keys)) & (F.length(content) <= LARGEST_IMAGE_BYTES))
    rows = wanted.select(key_text(key).alias("key"), content.alias("content")).collect()
    return {row["key"]: bytes(row["content"]) for row in rows}


def _cards(rows: DataFrame, fields: Fields) -> dict[str, Any]:
    """Return the rows shown with their images: a sample, the least sure, and the wrong ones, surest first."""
    if fields.label is None:
        return {}
    # A score that is not a number would sort as the largest and cannot be drawn.
    score = F.when(F.isnan("score"), None).otherwise(F.col("score")).alias("score")
    scored = rows.where(F.col("predicted").isNotNull()).select("key", "predicted", "truth", score, "wrong")
    wanted = {"sample": scored.orderBy(F.xxhash64("key"))}
    if fields.score:
        wanted["unsure"] = scored.where(F.col("score").isNotNull()).orderBy("score", "key")
    if fields.truth:
        mistakes = scored.where("wrong")
        wanted["wrong"] = mistakes.orderBy(F.col("score").desc_nulls_last(), "key")
    parts = [frame.limit(SHOWN_CARDS).withColumn("part", F.lit(part)) for part, frame in wanted.items()]
    found = reduce(DataFrame.unionAll, parts).collect()
    return {part: tuple(Card(*row[:4]) for row in found if row["part"] == part) for part in wanted}


def _runs(spark: SparkSession, predictions: str) -> tuple[Run, ...]:
    """Return the latest runs, newest first; none if there is no run table: it is best effort."""
    name = table_names.sibling(predictions, "_runs")
    if not tables.exists(spark, name):
        return ()
    kept = tables.read(spark, name).orderBy(F.col("started").desc()).limit(SHOWN_RUNS).collect()
    return tuple(
        Run(
            row["started"],
            row["mode"],
            row["source_version"],
            row["rows"],
            row["rows_error"],
            row["seconds"],
            {stage: row[name] for name, stage in STAGES.items() if name in row},
        )
        for row in kept
    )
