"""What workers counted for a report, added up: totals, groups of rows, and numeric outputs in bins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from lakemill.engines.relations import Rows
from lakemill.report.values import Count, Histogram, Named, Totals
from lakemill_udfs.report_counts import BINS, COUNTS, MEASURES, ReportFields, measure, tally

LARGEST_GROUP = 1000  # counts of one kind that are kept, however many there are

Measured = Mapping[tuple[str, str], Mapping[str, Any]]
"""By kind and name."""


def measured(rows: Rows, fields: ReportFields) -> Measured:
    """Return ``MEASURES`` of all rows.

    Args:
        rows: Of the predictions table.
        fields: What its columns are.
    """
    found = pl.DataFrame(rows.select(fields.columns).map(partial(measure, fields=fields), MEASURES).to_arrow())
    whole = found.group_by("kind", "name").agg(
        pl.sum("rows", "finite", "compared", "total", "error"), pl.min("low", "first"), pl.max("high", "last")
    )
    return {(row["kind"], row["name"]): row for row in whole.iter_rows(named=True)}


def totals(counted: Measured) -> Totals:
    """Return a table's totals."""
    names = ("rows", "errors", "flagged", "judged", "right")
    whole = counted.get(("count", "rows"), {})
    first, last = (_utc(whole.get(name)) for name in ("first", "last"))
    counts = {name: int(counted.get(("count", name), {}).get("rows", 0)) for name in names}
    return Totals(**counts, first=first, last=last)


def checks(counted: Measured, fields: ReportFields) -> tuple[Named, ...]:
    """Return the rows that each check flagged."""
    return tuple(Named(name, int(counted.get(("check", name), {}).get("rows", 0))) for name in fields.checks)


def groups(rows: Rows, fields: ReportFields, counted: Measured) -> tuple[dict[str, list[Count]], tuple[Histogram, ...]]:
    """Count rows by pair of truth and label, by label, by score, by error, by model and by bins, in one pass.

    Args:
        rows: Of the predictions table.
        fields: What its columns are.
        counted: Their measures; they say where the bins are.

    Returns:
        The counts of each kind, mistakes and then the most frequent first, at most ``LARGEST_GROUP`` of each; and how
        the numeric outputs are distributed.
    """
    numbers = {name: counted.get(("number", name), {}) for name, _ in fields.numbers}
    numbers = {name: stats for name, stats in numbers.items() if stats.get("finite")}
    bounds = {name: (stats["low"], stats["high"]) for name, stats in numbers.items()}
    work = partial(tally, fields=fields, bounds=bounds)
    found = pl.DataFrame(rows.select(fields.columns).map(work, COUNTS).to_arrow())
    whole = (
        found.group_by("kind", "one", "two")
        .agg(pl.sum("rows", "wrong"), pl.min("message", "first"), pl.max("last"))
        .sort("wrong", "rows", "one", "two", descending=[True, True, False, False])
    )
    kinds: dict[str, list[Count]] = {kind: [] for kind in ("pairs", "labels", "scores", "errors", "models")}
    for kind, known in kinds.items():
        kept = whole.filter(kind=kind).head(LARGEST_GROUP).drop("kind")
        known += [Count(**row) for row in kept.iter_rows(named=True)]
    bins = {(one, int(two)): count for one, two, count in whole.filter(kind="bins")["one", "two", "rows"].iter_rows()}
    return kinds, tuple(_histogram(name, stats, bins) for name, stats in numbers.items())


def _histogram(name: str, stats: Mapping[str, Any], bins: Mapping[tuple[str, int], int]) -> Histogram:
    return Histogram(
        name,
        stats["low"],
        stats["high"],
        stats["total"] / stats["finite"],
        tuple(bins.get((name, place), 0) for place in range(BINS)),
        stats["rows"] - stats["finite"],
        stats["error"] / stats["compared"] if stats["compared"] else None,
    )


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)
