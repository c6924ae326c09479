"""``where`` on this engine: the part of Spark's SQL that means the same in Arrow; all else is refused.

Read: columns and fields of structs (``out.label``, ``metadata['job']``), in any case; ``= <> < <= > >= <=>``,
``BETWEEN``, ``IN`` with literals, ``LIKE`` without escapes, ``IS [NOT] NULL``, ``IS [NOT] TRUE``, ``AND``, ``OR``,
``NOT``; literals of numbers, strings, booleans, ``DATE '2026-01-31'``, ``TIMESTAMP '2026-01-31T00:00:00Z'`` with a
zone; casts of integers to wider ones.

Where Spark and Arrow part, Spark's meaning is built: NaN is equal to itself and above all numbers, and NOT of an
unknown stays unknown. What depends on a session (time zones), on ANSI mode (casts of text) or on the row's number is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lakemill.engines.local.features import unsupported

MOST_NULLABLE = 3
"""Columns with nulls that statistics are used of; each doubles the cases to look at."""


@dataclass(frozen=True)
class Bounds:
    """What the log says of one file.

    Args:
        partition: Value of each partition column.
        statistics: ``min.<column>``, ``max.<column>`` and ``null_count.<column>``.
    """

    partition: Mapping[str, Any]
    statistics: Mapping[str, Any]

    def cases(self, path: tuple[str, ...], kind: pa.DataType) -> list[pc.Expression]:
        """Return what may hold of a column's values in the file, one expression a case; none if nothing is known."""
        column = pc.field(*path)
        if path[0] in self.partition:
            value = self.partition[path[0]]
            return [column.is_null()] if value is None else [column == pa.scalar(value, kind)]
        name = ".".join(path)
        low, high, nulls = (self.statistics.get(f"{part}.{name}") for part in ("min", "max", "null_count"))
        rows = self.statistics.get("num_records")
        if nulls is not None and nulls == rows:
            return [column.is_null()]
        if low is None or high is None or nulls is None or not _has_exact_bounds(kind):
            return []
        between = (column >= pa.scalar(low, kind)) & (column <= pa.scalar(high, kind))
        if low == high and not pa.types.is_string(kind):  # long texts are cut, so equal bounds are not equal values
            between = column == pa.scalar(low, kind)
        return [between, column.is_null()] if nulls else [between]


def _has_exact_bounds(kind: pa.DataType) -> bool:
    """Return whether statistics bound the values: those of timestamps are cut to milliseconds, floats' forget NaN."""
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind))


@dataclass(frozen=True)
class Predicate:
    """A predicate that was read against a schema. It can be pickled.

    Args:
        text: As it was written.
        schema: Of the rows that it is about.
        expression: In Arrow's terms; true, false or null for each row.
        columns: The leaf columns that it reads, by path, with their types.
    """

    text: str
    schema: pa.Schema
    expression: pc.Expression
    columns: tuple[tuple[tuple[str, ...], pa.DataType], ...]

    @classmethod
    def read(cls, text: str, schema: pa.Schema) -> Predicate:
        """Read a predicate.

        Args:
            text: SQL.
            schema: Of the rows that it is about.

        Raises:
            ConfigError: ``WHERE_INVALID`` if it does not parse or names no column of the table.
            SetupError: ``ENGINE_LOCAL`` if Spark could read it otherwise than this engine.
        """
        from lakemill.engines.local.expressions import Reading, parse  # and sqlglot, 70 ms, only where it is asked

        try:
            reading = Reading(text, schema)
            expression = reading.condition(parse(text, schema))
        except RecursionError as error:
            raise unsupported("the predicate is nested too deeply for the local engine.") from error
        return cls(text, schema, expression, tuple(reading.columns.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the top-level columns that it reads."""
        return tuple(dict.fromkeys(path[0] for path, _ in self.columns))

    def may_hold(self, bounds: Bounds) -> bool:
        """Return whether a file can have a row for which it is true."""
        known = list(self._known(bounds))
        return any(self._may_hold(case) for case in product(*known))

    def _known(self, bounds: Bounds) -> Iterator[list[pc.Expression]]:
        nullable = 0
        for path, kind in self.columns:
            cases = bounds.cases(path, kind)
            nullable += len(cases) > 1
            if cases and not (len(cases) > 1 and nullable > MOST_NULLABLE):
                yield cases

    def _may_hold(self, facts: tuple[pc.Expression, ...]) -> bool:
        """Return whether Arrow, knowing the facts, cannot rule the predicate out."""
        known = pc.scalar(True)
        for fact in facts:
            known &= fact
        from pyarrow import dataset as ds  # brings pandas along, 0.3 s, and most runs rule no file out
        from pyarrow import fs

        form, store = ds.ParquetFileFormat(), fs.LocalFileSystem()
        fragment = form.make_fragment("-", store, partition_expression=known)  # of no file: Arrow only reasons
        dataset = ds.FileSystemDataset([fragment], self.schema, form, store)
        return any(True for _ in dataset.get_fragments(self.expression))

    def filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows for which it is true."""
        return batch.filter(self.expression)
