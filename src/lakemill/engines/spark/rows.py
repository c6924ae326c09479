"""Spark's rows: DataFrames behind the engine's protocol."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import pyarrow as pa

from lakemill.engines.relations import KeyFaults
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES, reported, reported_whole, spark_failure
from lakemill.engines.spark.schemas import arrow_schema, column_of, spark_struct
from lakemill_udfs.naming import with_names
from lakemill_udfs.worker import PLACE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakemill.engines.relations import PieceFunction, Rows

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def translated(work: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that raises Lakemill's errors for Spark's."""

    @functools.wraps(work)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return work(*args, **kwargs)
        except SPARK_FAILURES as error:
            raise spark_failure(error) from error

    return guarded


@dataclass(frozen=True)
class SparkRows:
    """A DataFrame, lazily.

    Args:
        frame: The rows.
        versions: For rows of a change feed, their keys and the version that made each, as ``latest`` says.
        are_few: Whether the driver can hold all of them, if they are small.
    """

    frame: DataFrame
    versions: KeyVersions | None = None
    are_few: bool = False

    @property
    @translated
    def schema(self) -> pa.Schema:
        """The columns, with their metadata."""
        return arrow_schema(self.frame.schema)

    def where(self, predicate: str) -> SparkRows:
        """Keep the rows for which an SQL predicate is true."""
        return replace(self, frame=tables.filtered(self.frame, predicate))

    def select(self, columns: Sequence[str]) -> SparkRows:
        """Keep these columns."""
        return SparkRows(self.frame.select(*(column_of(self.frame, name).alias(name) for name in columns)))

    def limit(self, count: int) -> SparkRows:
        """Keep at most ``count`` rows."""
        return SparkRows(self.frame.limit(count))

    def newest(self, count: int, by: str, then: Sequence[str]) -> SparkRows:
        """Keep the ``count`` rows with the greatest ``by``."""
        order = [column_of(self.frame, by).desc(), *(column_of(self.frame, name) for name in then)]
        return SparkRows(self.frame.orderBy(*order).limit(count))

    def only(self, others: Rows, columns: Sequence[str]) -> SparkRows:
        """Keep the rows whose ``columns`` some row of ``others`` has."""
        return self._joined(frame_of(others), columns, "left_semi")

    def without(self, others: Rows, columns: Sequence[str]) -> SparkRows:
        """Keep the rows whose ``columns`` no row of ``others`` has."""
        return self._joined(frame_of(others), columns, "left_anti")

    def _joined(self, others: DataFrame, columns: Sequence[str], how: str) -> SparkRows:
        renamed = unused_names(columns, self.frame.columns)
        keys = others.select(*(column_of(others, name).alias(renamed[name]) for name in columns))
        return SparkRows(self.frame.join(keys, same_key(self.frame, keys, renamed), how))

    @translated
    def map(self, function: PieceFunction, schema: pa.Schema) -> SparkRows:
        """Give what a function makes of the rows' record batches."""
        names = self.frame.columns
        places = [PLACE.format(place) for place in range(len(names))]  # Spark reads a dot in a name as a field
        work = reported(partial(with_names, tuple(names), function))
        return SparkRows(self.frame.toDF(*places).mapInArrow(work, spark_struct(schema)))

    @translated
    def map_groups(self, by: Sequence[str], function: Callable[[Any], Any], columns: pa.Schema | str) -> SparkRows:
        """Give what a function makes of each group's ``pandas.DataFrame``."""
        schema = columns if isinstance(columns, str) else spark_struct(columns)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cannot infer the eval type")  # a partial has no hints, and needs none
            groups = self.frame.groupBy(*(column_of(self.frame, name) for name in by))
            return SparkRows(groups.applyInPandas(reported_whole(function), schema))

    @translated
    def is_empty(self) -> bool:
        """Run, and return whether there is no row."""
        return self.frame.isEmpty()

    @translated
    def count(self) -> int:
        """Run, and return how many rows there are."""
        return self.frame.count()

    @translated
    def tally(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Run, and return how many rows each combination of values has."""
        from pyspark.sql import functions as fn

        places = [f"c{place}" for place in range(len(columns))]
        named = self.frame.select(
            *(column_of(self.frame, name).alias(place) for name, place in zip(columns, places, strict=True))
        )
        counted = named.groupBy(*places).agg(fn.count("*").alias("rows")).orderBy(fn.desc("rows")).collect()
        return [dict(zip((*columns, "rows"), row, strict=True)) for row in map(_plain, counted)]

    @translated
    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Run, and return how many rows have a key that does not tell them apart."""
        from pyspark.sql import functions as fn

        places = [f"c{place}" for place in range(len(key))]
        keys = self.frame.select(
            *(column_of(self.frame, name).alias(place) for name, place in zip(key, places, strict=True))
        )
        is_null = fn.expr(" OR ".join(f"{place} IS NULL" for place in places))
        counted = keys.groupBy(*places).agg(fn.count("*").alias("rows"))
        nulls = fn.sum(fn.when(is_null, fn.col("rows")))
        repeated = fn.sum(fn.when(~is_null & (fn.col("rows") > 1), fn.col("rows")))
        found = counted.agg(fn.sum("rows"), nulls, repeated).collect()[0]
        return KeyFaults(*(count or 0 for count in found))

    @translated
    def to_arrow(self) -> pa.Table:
        """Run, and bring the rows here."""
        return self.frame.toArrow()


def _plain(row: Sequence[Any]) -> list[Any]:
    return [value.asDict(recursive=True) if hasattr(value, "asDict") else value for value in row]


@dataclass(frozen=True)
class KeyVersions:
    """The version of the source that made each row of a change feed.

    Args:
        frame: The keys under other names, and ``version``.
        renamed: The name that each key column has there.
        version: The name of the version's column.
    """

    frame: DataFrame
    renamed: dict[str, str]
    version: str


def frame_of(rows: Rows) -> DataFrame:
    """Return the DataFrame of rows, which are this engine's."""
    return cast(SparkRows, rows).frame


def unused_names(columns: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Return for each column a name that no column of ``taken`` has, whatever its case."""
    known = {name.lower() for name in taken}
    names = {}
    for place, column in enumerate(columns):
        name = f"__key_{place}"
        while name in known:
            name = f"_{name}"
        names[column] = name
    return names


def same_key(left: DataFrame, right: DataFrame, renamed: dict[str, str]) -> Column:
    """Return the condition that two rows have the same key, null being equal to null.

    Args:
        left: With the key's own names.
        right: With the names of ``renamed``, which ``left`` does not have.
        renamed: The name on the right for each on the left.
    """
    conditions = [column_of(left, name).eqNullSafe(column_of(right, other)) for name, other in renamed.items()]
    return functools.reduce(lambda one, other: one & other, conditions)
