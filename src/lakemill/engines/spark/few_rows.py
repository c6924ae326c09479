"""Few rows: scored by Spark's workers, held by the driver, committed by the local engine.

Before Spark writes to a Delta table with a transaction, it works out the table's whole state, in jobs of its own: in a
session that has just begun that takes three seconds, in a warm one most of one, whatever there is to write. The local
engine's commit means the same, as both engines write the same tables, and takes milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Layout, Transaction
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.relations import KeyFaults
from lakemill.engines.schemas import fields_of
from lakemill.engines.spark.shipping import is_local
from lakemill.engines.spark.tables import INVALID
from lakemill_udfs.errors import LakemillError, SetupError
from lakemill_udfs.files import local_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill_udfs.plan import PredictPlan
    from lakemill_udfs.tensors.spec import TensorSpec

MOST_ROWS, MOST_BYTES = 20_000, 2 * 2**20
MOST_VALUES = 256
"""Of a tensor in one row."""

MOST_COMMITS = 32
"""Whose files are read to know how many rows they add."""

DEFAULTS = "spark.databricks.delta.properties.defaults."
"""What a session has Delta give each new table."""


@dataclass(frozen=True)
class ScoredHere:
    """Few rows that were scored once.

    Args:
        table: The predictions.
        tasks: What each task measured.
    """

    table: pa.Table
    tasks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.table.num_rows)

    @property
    def rows_error(self) -> int:
        """Of those, rows with an error."""
        return self.rows - int(self.table["error"].null_count)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not self.rows

    def key_faults(self, key: Sequence[str]) -> KeyFaults:
        """Return how many rows have a key that does not tell them apart."""
        return LocalEngine().given(self.table).key_faults(key)

    def to_arrow(self) -> pa.Table:
        """Return the rows."""
        return self.table


def are_few(source: str, first: int, last: int) -> bool:
    """Return whether commits of a table are known to add few rows and to take none away.

    Args:
        source: Path or catalog name.
        first: The first commit.
        last: The last one.
    """
    location = table_names.here(source)
    if location is None or last - first >= MOST_COMMITS:
        return False
    log = DeltaLog(location)
    commits = [log.commit(version) for version in range(first, last + 1)]
    known = [commit for commit in commits if commit is not None and commit.rows is not None]
    return (
        len(known) == len(commits)
        and sum(commit.rows or 0 for commit in known) <= MOST_ROWS
        and sum(commit.bytes for commit in known) <= MOST_BYTES
    )


def may_be_held(spark: SparkSession, plan: PredictPlan, columns: pa.Schema, into: str | None) -> bool:
    """Return whether few rows of a source are small with their results, and go to a table on this machine's disk.

    Args:
        spark: The session.
        plan: Says what is read and made.
        columns: Of the source.
        into: Where the results go.
    """
    known = fields_of(columns)
    carried = (*plan.passthrough, *(plan.input_columns if "in" in plan.parts else ()))
    made = (*plan.wiring.outputs, *chain.from_iterable(branch.outputs for branch in plan.branches))
    is_small = all(_is_single(known[name].type) for name in carried) and all(map(_is_short, made))
    return is_small and into is not None and writes_here(spark, into)


def writes_here(spark: SparkSession, table: str) -> bool:
    """Return whether a table's path means the same to a session as to this process: one on this machine's disk."""
    if hasattr(spark, "cloneSession") or not is_local(spark) or spark.conf.get("spark.hadoop.fs.defaultFS", None):
        return False
    return table_names.here(table) is not None


def _is_single(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_string(kind))


def _is_short(spec: TensorSpec) -> bool:
    return spec.is_fixed and math.prod(size or 0 for size in spec.shape) <= MOST_VALUES


def append(scored: ScoredHere, table: str, transaction: Transaction | None) -> bool | None:
    """Append rows in one commit; see ``Engine.append``. None if the table has a feature that only Spark writes."""
    engine = LocalEngine()
    try:
        return engine.append(engine.given(scored.table), table, transaction)
    except SetupError:
        return None


def make(spark: SparkSession, table: str, schema: pa.Schema, layout: Layout) -> bool:
    """Make an empty table where nothing is on this machine's disk; return False where that is left to Spark.

    Spark takes a second for it. It is asked where a session has properties of its own for new tables, and for all but
    plain tables.
    """
    settings: Any = spark.conf.getAll  # a property in PySpark 4; its stub says method
    is_plain = not (layout.change_feed or layout.partition_by or any(map(INVALID.search, schema.names)))
    if not is_plain or not writes_here(spark, table) or any(name.startswith(DEFAULTS) for name in dict(settings)):
        return False
    folder = Path(local_path(table_names.location(table)) or "")
    try:
        is_free = not folder.exists() or not any(folder.iterdir())
        return is_free and LocalEngine().make(table, schema, layout)
    except (LakemillError, OSError):  # Spark says why
        return False
