"""Which columns of a predictions table mean what: read off its schema, since any pipeline may have written it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 -- the name that every Spark user knows
from pyspark.sql.types import StructType

RESERVED = {"time", "in", "out", "anomaly", "error", "metadata"}
INTEGRAL = {"tinyint", "smallint", "int", "bigint"}
FRACTIONAL = {"float", "double"}
SCORES = ("probability", "score", "confidence")


def column(*path: str) -> Column:
    """Return a (nested) column by its exact names, whatever characters they hold."""
    return F.col(".".join(f"`{part.replace('`', '``')}`" for part in path))


def key_text(key: Sequence[str]) -> Column:
    """Return the key columns as one text; a single text column stays as it is, so that filters on it reach Parquet."""
    parts = [column(name).cast("string") for name in key]
    return parts[0] if len(parts) == 1 else F.concat_ws(" · ", *parts)


@dataclass(frozen=True)
class Fields:
    """The roles of a predictions table's columns.

    Args:
        key: Key columns.
        label: Field of ``out`` that names a class.
        truth: Carried column that names the true class.
        score: Field of ``out`` with the label's probability.
        numbers: Other numeric fields of ``out``, each with the carried column of the same name, if there is one.
        checks: Fields of ``anomaly``.
    """

    key: tuple[str, ...]
    label: str | None
    truth: str | None
    score: str | None
    numbers: tuple[tuple[str, str | None], ...]
    checks: tuple[str, ...]

    @classmethod
    def of(cls, schema: StructType, key: Sequence[str]) -> Fields:
        """Read the roles off a schema.

        The label is ``out.label``, else the first text, else the first integer field of ``out``. The truth is the
        carried column of the label's name, else ``label``.
        """
        carried = {name: kind for name, kind in _types(schema) if name not in RESERVED}
        out = dict(_types(_struct(schema, "out")))
        label = _label(out)
        numeric = {name for name, kind in (carried | out).items() if kind in FRACTIONAL | INTEGRAL}
        score = next((name for name in SCORES if label and out.get(name) in FRACTIONAL), None)
        return cls(
            key=tuple(key),
            label=label,
            truth=next((name for name in (label, "label") if label and name in carried), None),
            score=score,
            numbers=tuple(
                (name, name if name in carried and name in numeric else None)
                for name in out
                if name in numeric and name not in (label, score)
            ),
            checks=tuple(name for name, _ in _types(_struct(schema, "anomaly")) if name != "count"),
        )

    def narrow(self, frame: DataFrame) -> DataFrame:
        """Return the columns that a report reads, under names of their own, null where the table has none.

        Returns:
            ``key, predicted, truth, wrong, score, time, out, anomaly, error, metadata`` and ``carried``, a struct of
            the numbers' true values.
        """
        nothing = F.lit(None)
        predicted = column("out", self.label) if self.label else nothing
        rows = frame.select(
            key_text(self.key).alias("key"),
            F.when(column("error").isNull(), predicted.cast("string")).alias("predicted"),
            (column(self.truth) if self.truth else nothing).cast("string").alias("truth"),
            (column("out", self.score) if self.score else nothing).cast("double").alias("score"),
            *(column(name) if name in frame.columns else nothing.alias(name) for name in ("time", "out", "anomaly")),
            F.struct(*(column(truth) for _, truth in self.numbers if truth)).alias("carried"),
            "error",
            "metadata",
        )
        return rows.withColumn("wrong", F.coalesce(F.col("predicted") != F.col("truth"), F.lit(False)))


def _label(out: dict[str, str]) -> str | None:
    if "label" in out:
        return "label"
    texts = [name for name, kind in out.items() if kind == "string"]
    integers = [name for name, kind in out.items() if kind in INTEGRAL]
    return next(iter(texts + integers), None)


def _struct(schema: StructType, name: str) -> StructType:
    kind = schema[name].dataType if name in schema.names else None
    return kind if isinstance(kind, StructType) else StructType([])


def _types(schema: StructType) -> Iterator[tuple[str, str]]:
    return ((field.name, field.dataType.simpleString()) for field in schema)
