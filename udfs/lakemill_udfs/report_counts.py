"""What workers count of a predictions table for its report: totals, groups of rows, and the rows that are shown.

Each function takes record batches with the columns of ``ReportFields`` and gives a bounded number of rows, which the
driver adds up. Polars is imported in the functions, as elsewhere in workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl

BINS = 20
"""Equal steps of a score, 0..1, and of a number between its extremes."""

TIME = pa.timestamp("us", "UTC")
MEASURES = pa.schema(
    [
        *[(name, pa.string()) for name in ("kind", "name")],
        *[(name, pa.int64()) for name in ("rows", "finite", "compared")],
        *[(name, pa.float64()) for name in ("low", "high", "total", "error")],
        *[(name, TIME) for name in ("first", "last")],
    ]
)
"""Counts, and of a number also its finite rows, extremes and sum, and the sum of absolute errors of compared rows."""

COUNTS = pa.schema(
    [
        *[(name, pa.string()) for name in ("kind", "one", "two")],
        *[(name, pa.int64()) for name in ("rows", "wrong")],
        *[(name, pa.string()) for name in ("message", "first", "last")],
    ]
)
"""Rows of one kind that have the same one or two values; a message of theirs, and the first and last key."""

SHOWN = pa.schema(
    [
        *[(name, pa.string()) for name in ("part", "key", "predicted", "truth")],
        ("score", pa.float64()),
        ("place", pa.int64()),
    ]
)
"""Rows with the parts of the page that they may be shown in."""


@dataclass(frozen=True)
class ReportFields:
    """The roles of a predictions table's columns.

    Args:
        key: Key columns.
        label: Field of ``out`` that names a class.
        truth: Carried column that names the true class.
        score: Field of ``out`` with the label's probability.
        numbers: Other numeric fields of ``out``, each with the carried column of the same name, if there is one.
        checks: Fields of ``anomaly``.
        has_time: Whether the table says when rows were scored.
    """

    key: tuple[str, ...]
    label: str | None = None
    truth: str | None = None
    score: str | None = None
    numbers: tuple[tuple[str, str | None], ...] = ()
    checks: tuple[str, ...] = ()
    has_time: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        out = [name for name in (self.label, self.score, *(name for name, _ in self.numbers)) if name is not None]
        checks = ("count", *self.checks) if self.checks else ()
        names = [
            *self.key,
            *(name for name in (self.truth, *(truth for _, truth in self.numbers)) if name is not None),
            *(f"out.{name}" for name in out),
            *(f"anomaly.{name}" for name in checks),
            *(["time"] if self.has_time else []),
            *(f"error.{name}" for name in ("stage", "code", "message")),
            *(f"metadata.{name}" for name in ("pipeline", "pipeline_version", "models")),
        ]
        return list(dict.fromkeys(names))


def key_text(key: Sequence[str]) -> pl.Expr:
    """Return the key columns as one text."""
    import polars as pl

    return pl.concat_str([pl.col(name).cast(pl.String) for name in key], separator=" · ", ignore_nulls=True)


def measure(batches: Iterable[pa.RecordBatch], fields: ReportFields) -> Iterator[pa.RecordBatch]:
    """Yield ``MEASURES`` of each batch."""
    import polars as pl

    flagged = pl.col("anomaly.count") > 0 if fields.checks else pl.lit(False)
    judged = pl.col("predicted").is_not_null() & pl.col("truth").is_not_null()
    counts = {
        ("count", "rows"): pl.len(),
        ("count", "errors"): pl.col("error.code").is_not_null().sum(),
        ("count", "flagged"): flagged.sum(),
        ("count", "judged"): judged.sum(),
        ("count", "right"): (judged & ~pl.col("wrong")).sum(),
        **{("check", name): pl.col(f"anomaly.{name}").sum() for name in fields.checks},
    }
    for batch in batches:
        frame = _narrow(batch, fields)
        found: list[dict[str, Any]] = [
            {"kind": kind, "name": name, "rows": int(frame.select(count).item() or 0)}
            for (kind, name), count in counts.items()
        ]
        if fields.has_time:
            found[0] |= {"first": frame["time"].min(), "last": frame["time"].max()}
        found += [_number(frame, name, truth) for name, truth in fields.numbers]
        yield pa.RecordBatch.from_pylist(found, schema=MEASURES)


def _number(frame: pl.DataFrame, name: str, truth: str | None) -> dict[str, Any]:
    import polars as pl

    value = pl.col(f"out.{name}").cast(pl.Float64)
    finite = pl.when(value.is_finite()).then(value)
    error = (finite - pl.col(truth)).abs() if truth is not None else pl.lit(None, pl.Float64)
    stats = {
        "rows": value.count(),
        "finite": finite.count(),
        "compared": error.count(),
        "low": finite.min(),
        "high": finite.max(),
        "total": finite.sum(),
        "error": error.sum(),
    }
    return {"kind": "number", "name": name} | frame.select(**stats).row(0, named=True)


def tally(
    batches: Iterable[pa.RecordBatch], fields: ReportFields, bounds: Mapping[str, tuple[float, float]]
) -> Iterator[pa.RecordBatch]:
    """Yield ``COUNTS``: rows by pair of truth and label, label, score, error, model, and numbers' bins.

    Args:
        batches: The rows.
        fields: What their columns are.
        bounds: Extremes of each number.
    """
    import polars as pl

    scored, nothing = pl.col("predicted").is_not_null(), pl.lit(None, pl.String)
    step = pl.when(pl.col("score").is_between(0, 1)).then((pl.col("score") * BINS).floor().clip(0, BINS - 1))
    made_by = [pl.col(f"metadata.{name}").alias(name) for name in ("pipeline", "pipeline_version", "models")]
    models = pl.struct(made_by).struct.json_encode()
    kinds = [
        ("pairs", pl.when(scored).then(pl.col("truth")), pl.col("predicted")),
        ("labels", pl.col("predicted"), nothing),
        ("scores", pl.when(scored).then(step).cast(pl.Int32), nothing),
        ("errors", pl.col("error.stage"), pl.col("error.code")),
        ("models", models, nothing),
        *(("bins", *_bin(name, low, high)) for name, (low, high) in bounds.items()),
    ]
    by = ["kind", "one", "two"]
    for batch in batches:
        frame = _narrow(batch, fields)
        parts = [
            frame.select(
                pl.lit(kind).alias("kind"),
                one.cast(pl.String).alias("one"),
                two.cast(pl.String).alias("two"),
                pl.col("wrong").cast(pl.Int64),
                pl.col("error.message").alias("message"),
                "key",
            )
            .drop_nulls("one")
            .group_by(by)
            .agg(
                rows=pl.len(), wrong=pl.sum("wrong"), message=pl.min("message"), first=pl.min("key"), last=pl.max("key")
            )
            for kind, one, two in kinds
        ]
        yield from pl.concat(parts).select(COUNTS.names).to_arrow().cast(COUNTS).to_batches()


def _bin(name: str, low: float, high: float) -> tuple[pl.Expr, pl.Expr]:
    import polars as pl

    value = pl.col(f"out.{name}").cast(pl.Float64)
    place = ((value - low) / ((high - low) / BINS or 1.0)).floor().clip(0, BINS - 1)
    is_known = value.is_finite()
    return pl.when(is_known).then(pl.lit(name)), pl.when(is_known).then(place).cast(pl.Int32)


def choose(batches: Iterable[pa.RecordBatch], fields: ReportFields, count: int) -> Iterator[pa.RecordBatch]:
    """Yield ``SHOWN``, at most ``count`` rows for each part of the page."""
    import polars as pl

    empty = pl.DataFrame(SHOWN.empty_table())
    kept = empty
    for batch in batches:
        frame = _narrow(batch, fields).filter(pl.col("predicted").is_not_null())
        parts = [
            frame.filter(wanted)
            .with_columns(part=pl.lit(part), place=(pl.col("key").hash(0) // 2).cast(pl.Int64))
            .select(SHOWN.names)
            for part, wanted in _parts(fields).items()
        ]
        kept = first_of(pl.concat([kept, *(part.cast(empty.schema) for part in parts)]), count)
    yield from kept.to_arrow().cast(SHOWN).to_batches()


def _parts(fields: ReportFields) -> dict[str, pl.Expr]:
    import polars as pl

    parts = {"sample": pl.lit(True)}
    if fields.score is not None:
        parts["unsure"] = pl.col("score").is_not_null()
    if fields.truth is not None:
        parts["wrong"] = pl.col("wrong")
    return parts


def first_of(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return the first rows of each part: a sample by its keys' hash, the least sure, the wrong ones, surest first."""
    import polars as pl

    orders: dict[str, dict[str, Any]] = {
        "sample": {"by": ["place", "key"]},
        "unsure": {"by": ["score", "key"]},
        "wrong": {"by": ["score", "key"], "descending": [True, False], "nulls_last": True},
    }
    return pl.concat([rows.filter(part=part).sort(**order).head(count) for part, order in orders.items()])


def _narrow(batch: pa.RecordBatch, fields: ReportFields) -> pl.DataFrame:
    """Return a batch with ``key``, ``predicted``, ``truth``, ``score`` and ``wrong``; null where there is none."""
    import polars as pl

    frame = pl.DataFrame(pa.Table.from_batches([batch]))
    nothing = pl.lit(None, pl.String)
    score = pl.col(f"out.{fields.score}").cast(pl.Float64) if fields.score is not None else pl.lit(None, pl.Float64)
    predicted = pl.col(f"out.{fields.label}").cast(pl.String) if fields.label is not None else nothing
    frame = frame.with_columns(
        key=key_text(fields.key),
        predicted=pl.when(pl.col("error.code").is_null()).then(predicted),
        truth=pl.col(fields.truth).cast(pl.String) if fields.truth is not None else nothing,
        score=pl.when(score.is_nan()).then(None).otherwise(score),  # it would sort as the largest, and is not drawn
    )
    return frame.with_columns(wrong=(pl.col("predicted") != pl.col("truth")).fill_null(False))


def pictures(
    batches: Iterable[pa.RecordBatch], key: Sequence[str], column: str, largest_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Yield the keys' text and the encoded images that are not too large for a thumbnail.

    Yields:
        Batches of ``PICTURES``.
    """
    import polars as pl

    for batch in batches:
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        content = pl.when(pl.col(column).bin.size() <= largest_bytes).then(pl.col(column))
        found = frame.select(key=key_text(key), content=content).drop_nulls()
        yield from found.to_arrow().cast(PICTURES).to_batches()


PICTURES = pa.schema([("key", pa.string()), ("content", pa.binary())])


def keys_of(batches: Iterable[pa.RecordBatch], texts: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """Yield the keys whose text is wanted."""
    import polars as pl

    for batch in batches:
        frame = pl.DataFrame(pa.Table.from_batches([batch])).with_row_index("__row")
        places = frame.filter(key_text(batch.schema.names).is_in(list(texts)))["__row"]
        yield batch.take(places.to_arrow())
