"""Gathering a report from a predictions table: workers count, and only what is shown comes to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from functools import partial
from typing import Any

import polars as pl
from pyarrow import types

from lakemill.engines import table_names
from lakemill.engines.engine import Engine, opened
from lakemill.engines.relations import Rows
from lakemill.engines.sql import quoted, sql_text
from lakemill.report import layout
from lakemill.report.counts import checks, groups, measured, totals
from lakemill.report.fields import fields_of
from lakemill.report.values import Card, Report, Run, Totals
from lakemill_udfs.report_counts import (
    PICTURES,
    SHOWN,
    ReportFields,
    choose,
    first_of,
    keys_of,
    pictures,
)

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


def collect(engine: Engine, predictions: str, key: Sequence[str], *, title: str, source: str | None) -> Report:
    """Gather the report of a predictions table, without thumbnails.

    Args:
        engine: What reads it.
        predictions: The predictions table.
        key: Its key columns.
        title: Name of the job.
        source: Name of the source table.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    snapshot = opened(engine, predictions)
    fields, rows = fields_of(snapshot.schema, key), engine.rows(snapshot)
    counts = measured(rows, fields)
    counted, histograms = groups(rows, fields, counts)
    return Report(
        title=title,
        table=predictions,
        source=source,
        totals=totals(counts),
        **_cards(rows, fields),
        confusion=layout.confusion(counted["pairs"]),
        labels=layout.labels(counted["labels"]),
        scores=layout.scores(counted["scores"]),
        histograms=histograms,
        errors=layout.errors(counted["errors"]),
        checks=checks(counts, fields),
        runs=_runs(engine, predictions),
        models=layout.models(counted["models"]),
    )


def count_results(engine: Engine, predictions: str, key: Sequence[str]) -> Totals:
    """Return a predictions table's totals alone.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    snapshot = opened(engine, predictions)
    return totals(measured(engine.rows(snapshot), fields_of(snapshot.schema, key)))


def contents(
    engine: Engine, source: str, key: Sequence[str], image_column: str, keys: Sequence[str]
) -> dict[str, bytes]:
    """Return the encoded images of the rows that are shown, by key; empty where the source has none.

    Args:
        engine: What reads it.
        source: The source table.
        key: Key columns.
        image_column: Binary column with encoded images.
        keys: Texts of the wanted keys, as on the cards.
    """
    snapshot = engine.snapshot(source) if keys else None
    if snapshot is None:
        return {}
    kinds = {field.name: field.type for field in snapshot.schema}
    if not types.is_binary(kinds.get(image_column)) or not set(key) <= set(kinds):
        return {}
    rows = engine.rows(snapshot)
    if len(key) == 1 and types.is_string(kinds[key[0]]):  # a predicate that files can be left out by
        wanted = rows.where(f"{quoted(key[0])} IN ({', '.join(map(sql_text, keys))})")
    else:
        whole = rows.select(key)
        texts = partial(keys_of, texts=frozenset(keys))
        wanted = rows.only(engine.given(whole.map(texts, whole.schema).to_arrow()), key)
    show = partial(pictures, key=tuple(key), column=image_column, largest_bytes=LARGEST_IMAGE_BYTES)
    found = wanted.select([*key, image_column]).map(show, PICTURES).to_arrow()
    return {row["key"]: row["content"] for row in found.to_pylist()}


def _cards(rows: Rows, fields: ReportFields) -> dict[str, Any]:
    """Return the rows shown with their images: a sample, the least sure, and the wrong ones, surest first."""
    if fields.label is None:
        return {}
    work = partial(choose, fields=fields, count=SHOWN_CARDS)
    found = pl.DataFrame(rows.select(fields.columns).map(work, SHOWN).to_arrow())
    cards: dict[str, list[Card]] = {"sample": [], "unsure": [], "wrong": []}
    for part, *card, _ in first_of(found, SHOWN_CARDS).iter_rows():
        cards[part].append(Card(*card))
    return {part: tuple(shown) for part, shown in cards.items()}


def _runs(engine: Engine, predictions: str) -> tuple[Run, ...]:
    """Return the latest runs, newest first; none if there is no run table: it is best effort."""
    snapshot = engine.snapshot(table_names.sibling(predictions, "_runs"))
    if snapshot is None:
        return ()
    kept = engine.rows(snapshot).newest(SHOWN_RUNS, "started", ()).to_arrow().to_pylist()
    return tuple(
        Run(
            row["started"].astimezone(UTC).replace(tzinfo=None),
            row["mode"],
            row["source_version"],
            row["rows"],
            row["rows_error"],
            row["seconds"],
            {stage: row[name] for name, stage in STAGES.items() if name in row},
        )
        for row in sorted(kept, key=lambda row: row["started"], reverse=True)
    )
