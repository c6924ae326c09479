"""What an engine reads: a table at one version, rows that are not read yet, rows that were scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pyarrow as pa

PieceFunction = Callable[[Any], Any]
"""An importable function, or a ``partial`` of one, from an iterator of record batches to one."""


class Snapshot(Protocol):
    """A Delta table at one version. What costs a look at its log is looked up when it is asked for."""

    @property
    def table(self) -> str:
        """Its name, as the job has it."""

    @property
    def kind(self) -> str:
        """``delta``; of what a catalog has besides and that has rows only, ``view``, ``parquet`` and the like."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns, with their metadata; ``null`` for a type that Arrow has not."""

    @property
    def version(self) -> int:
        """Its version."""

    @property
    def id(self) -> str:
        """Delta's id of the table: another table in the same place has another."""

    @property
    def location(self) -> str:
        """Its absolute path or URI."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Delta's table properties."""

    @property
    def partition_by(self) -> tuple[str, ...]:
        """The columns that make its folders."""

    @property
    def size(self) -> tuple[int, int]:
        """How many files it has, and their bytes."""


class Rows(Protocol):
    """Rows that are not read yet. Each method gives other rows or, where it says so, runs."""

    @property
    def schema(self) -> pa.Schema:
        """As ``Snapshot.schema``."""

    def where(self, predicate: str) -> Self:
        """Keep the rows for which an SQL predicate is true.

        Raises:
            ConfigError: ``WHERE_INVALID`` if it does not parse or does not fit the columns.
        """

    def select(self, columns: Sequence[str]) -> Self:
        """Keep these columns; ``metadata.job`` is the field of a struct, and called so in the result."""

    def limit(self, count: int) -> Self:
        """Keep at most ``count`` rows, any."""

    def newest(self, count: int, by: str, then: Sequence[str]) -> Self:
        """Keep the ``count`` rows with the greatest ``by``, in the order of the columns ``then``."""

    def only(self, others: Rows, columns: Sequence[str]) -> Self:
        """Keep the rows whose ``columns`` some row of ``others`` has; null is equal to null."""

    def without(self, others: Rows, columns: Sequence[str]) -> Self:
        """Keep the rows whose ``columns`` no row of ``others`` has; null is equal to null."""

    def map(self, function: PieceFunction, schema: pa.Schema) -> Self:
        """Give what an importable function makes of the rows' record batches, in workers."""

    def map_groups(self, by: Sequence[str], function: Callable[[Any], Any], columns: pa.Schema | str) -> Self:
        """Give what an importable function makes of each group's ``pandas.DataFrame``, in workers.

        Args:
            by: Columns whose values make a group.
            function: From a DataFrame to a DataFrame.
            columns: Of the result; or as SQL declares them.
        """

    def is_empty(self) -> bool:
        """Run, and return whether there is no row."""

    def count(self) -> int:
        """Run, and return how many rows there are."""

    def tally(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Run, and return how many ``rows`` each combination of values has, the most frequent first.

        Args:
            columns: Columns, or fields of structs as ``error.code``; the result names them so.
        """

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Run, and return how many rows have a key that does not tell them apart."""

    def to_arrow(self) -> pa.Table:
        """Run, and bring the rows here."""


@dataclass(frozen=True)
class KeyFaults:
    """How well a key tells rows apart.

    Args:
        rows: All rows.
        nulls: Of those, rows with null in their key.
        repeated: Of the others, rows that share theirs with another one.
    """

    rows: int
    nulls: int
    repeated: int


@dataclass(frozen=True)
class Latest:
    """What a source's changes come to.

    Args:
        rows: The rows that are in the source after them, one state for each key; each remembers the version that made
            it.
        gone: Keys of rows that are not.
        keys: All keys that the changes name.
        doubtful: Those of them of which the source may have, or have had, several rows at once: what came and went does
            not add up to one row or none; and those with null.
    """

    rows: Rows
    gone: Rows
    keys: Rows
    doubtful: Rows


class Scored(Protocol):
    """Rows that are scored once: kept until they are committed, or scored as they are written.

    Of the latter, nothing is known before the commit.
    """

    @property
    def is_empty(self) -> bool:
        """Whether it is known that there are none."""

    @property
    def rows(self) -> int:
        """How many."""

    @property
    def rows_error(self) -> int:
        """Of those, rows with an error."""

    @property
    def tasks(self) -> tuple[Mapping[str, Any], ...]:
        """What each task measured (``lakemill_udfs.plan.TASK``)."""

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Run, and return how many rows have a key that does not tell them apart."""

    def to_arrow(self) -> pa.Table:
        """Bring the rows here."""
