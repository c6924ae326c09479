"""The Spark engine: a session, DataFrames and SQL behind ``Engine``; nothing that Spark Connect has not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog, MetadataEntry
from lakemill.engines.engine import PLAIN, Following, Layout, Once, Own, Patch, Slice, Transaction, Watch
from lakemill.engines.relations import Latest, Rows, Scored, Snapshot
from lakemill.engines.spark import changes, commits, few_rows, tables
from lakemill.engines.spark.ahead import begin_worker
from lakemill.engines.spark.blob_tables import blob_session, optimize_table, vacuum_table
from lakemill.engines.spark.few_rows import ScoredHere, may_be_held
from lakemill.engines.spark.following import follow
from lakemill.engines.spark.rows import SparkRows, frame_of, translated
from lakemill.engines.spark.scan import scan_settings
from lakemill.engines.spark.schemas import arrow_schema, spark_struct
from lakemill.engines.spark.scoring import ScoredAsWritten, SparkScored, is_light_work, score_here, scored_rows
from lakemill.engines.spark.session import get_session, session_with, task_slots, task_threads
from lakemill.engines.spark.shipping import ship, ship_module
from lakemill.engines.spark.task_pace import telling
from lakemill_udfs.files import local_path
from lakemill_udfs.plan import PredictPlan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession


@dataclass(frozen=True)
class SparkSnapshot:
    """A Delta table at one version.

    Args:
        spark: The session that opened it.
        table: Its name.
        frame: Its rows.
        asked: The version asked for; None is the newest when it is looked up.
    """

    spark: SparkSession
    table: str
    frame: DataFrame
    asked: int | str | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns, with their metadata."""
        return arrow_schema(self.frame.schema)

    @cached_property
    @translated
    def kind(self) -> str:
        """``delta``, or what else a catalog has under this name."""
        return tables.kind(self.spark, self.table)

    @cached_property
    @translated
    def version(self) -> int:
        """Its version."""
        self._require_delta()
        if self._log is not None and self.asked is None and (newest := self._log.newest()) is not None:
            return newest
        return tables.version(self.spark, self.table, self.asked)

    @property
    def _log(self) -> DeltaLog | None:
        """The log of a table on this machine's disk: to read it costs milliseconds, to ask Spark jobs of its own."""
        here = table_names.is_path(self.table) and local_path(location := table_names.location(self.table)) is not None
        return DeltaLog(location) if here else None

    @cached_property
    @translated
    def _metadata(self) -> MetadataEntry | None:
        return None if self._log is None else self._log.metadata()

    @cached_property
    @translated
    def _detail(self) -> Row:
        self._require_delta()
        return tables.detail(self.spark, self.table)

    def _require_delta(self) -> None:
        if self.kind != "delta":
            raise table_names.not_delta(self.table, self.kind)

    @property
    def id(self) -> str:
        """Delta's id of the table."""
        return str((self._metadata or self._detail)["id"])

    @property
    def location(self) -> str:
        """Its absolute path or URI."""
        return str(self._detail["location"])

    @property
    def partition_by(self) -> tuple[str, ...]:
        """The columns that make its folders."""
        return tuple((self._metadata or self._detail)["partitionColumns"])

    @property
    def size(self) -> tuple[int, int]:
        """How many files it has, and their bytes."""
        known = None if self._log is None else self._log.size(self.version)
        if known is not None:
            return known
        return int(self._detail["numFiles"]), int(self._detail["sizeInBytes"])

    @cached_property
    @translated
    def properties(self) -> Mapping[str, str]:
        """Delta's table properties."""
        if self._metadata is not None:
            return self._metadata["configuration"]
        rows = self.spark.sql(f"SHOW TBLPROPERTIES {table_names.in_sql(self.table)}").collect()
        return {row["key"]: row["value"] for row in rows}


class SparkEngine:
    """Runs jobs on a Spark session.

    Args:
        session: The session that the job was given; it is not changed.
        tell: Gets a line every few seconds of long work.
    """

    name = "spark"

    def __init__(self, session: SparkSession, tell: Callable[[str], None] | None = None) -> None:
        self.user_session, self.tell = session, tell
        # Of its own, for settings and transactions. It makes no DataFrame from local data: that would leave it as the
        # process's active session.
        self.session = session_with(session, {})
        self._shipped_to: list[SparkSession] = [self.session]
        self._plan: PredictPlan | None = None

    @classmethod
    def open(
        cls, session: SparkSession | None, app_name: str, tell: Callable[[str], None] | None = None
    ) -> SparkEngine:
        """Return the engine of a session; without one, of the active one or a new one.

        Raises:
            SetupError: as ``get_session``.
        """
        return cls(session or get_session(app_name), tell)

    @cached_property
    def slots(self) -> int:
        """Tasks that run at once."""
        return task_slots(self.session)

    @property
    def threads(self) -> int:
        """The processors that a task owns."""
        return task_threads(self.session)

    @contextmanager
    def for_images(self) -> Iterator[SparkEngine]:
        """Give an engine that lays out tables of encoded images as they should be."""
        with blob_session(self.user_session) as session, telling(session, self.tell):
            engine = SparkEngine(self.user_session)
            engine.session = session
            engine._shipped_to = [session]
            yield engine

    @translated
    def snapshot(self, table: str, version: int | str | None = None) -> SparkSnapshot | None:
        """Return a Delta table; see ``Engine.snapshot``."""
        frame = tables.find(self.session, table)
        if frame is not None and version is not None:
            frame = tables.read(self.session, table, version)
        return None if frame is None else SparkSnapshot(self.session, table, frame, version)

    def rows(self, snapshot: Snapshot) -> SparkRows:
        """Return a table's rows."""
        return SparkRows(cast(SparkSnapshot, snapshot).frame)

    @translated
    def given(self, table: pa.Table, pieces: Sequence[int] | None = None) -> SparkRows:
        """Return rows that the driver holds."""
        spark = self.session if pieces is not None else self.user_session
        if pieces is None:
            return SparkRows(spark.createDataFrame(table).coalesce(1))
        from pyspark.sql import functions as fn

        numbered = table.append_column("__piece", pa.array(pieces, pa.int32()))
        rows = spark.createDataFrame(numbered).repartitionById(max(pieces, default=0) + 1, fn.col("__piece"))
        return SparkRows(rows.drop("__piece"))

    @translated
    def latest(self, changes_: Rows, key: Sequence[str], where: str | None, known: Rows) -> Latest:
        """Return each key's last state; see ``Engine.latest``."""
        return changes.latest(frame_of(changes_), key, where, frame_of(known))

    @translated
    def make(self, table: str, schema: pa.Schema, layout: Layout = PLAIN) -> bool:
        """Make a table unless there is one; see ``Engine.make``."""
        if few_rows.make(self.session, table, schema, layout):
            return True
        return tables.make(self.session, table, spark_struct(schema), layout)

    @translated
    def set_property(self, table: str, name: str, value: str) -> None:
        """Set a table's property."""
        tables.set_property(self.session, table, name, value)

    @translated
    def add_fields(self, table: str, schema: pa.Schema) -> None:
        """Add what a table lacks; see ``Engine.add_fields``."""
        # By an empty write: a field's metadata, which holds its tensor's shape, comes along.
        commits.append(SparkRows(self.user_session.createDataFrame([], spark_struct(schema))), table, None)

    @translated
    def widen(self, table: str, columns: pa.Schema) -> None:
        """Write a table again with wider types; see ``Engine.widen``."""
        tables.widen(self.session, table, spark_struct(columns))

    @translated
    def prepare(self, plan: PredictPlan, source: Snapshot) -> PredictPlan:
        """Tune the session for a source, and send models and modules to the executors."""
        for setting, (value, _) in scan_settings(self.session, source.schema, plan).items():
            self.session.conf.set(setting, value)
        shipped = plan
        for session in self._shipped_to:
            shipped = ship(session, plan)
        self._plan = shipped
        return shipped

    @translated
    def send(self, module: str) -> str | None:
        """Send a user's module to the executors."""
        return ship_module(self.session, module)

    @translated
    def settings(self, plan: PredictPlan, source: Snapshot) -> list[dict[str, str]]:
        """Return what ``prepare`` would set."""
        found = scan_settings(self.session, source.schema, plan).items()
        return [{"name": name, "value": value, "reason": reason} for name, (value, reason) in found]

    @contextmanager
    def scored(
        self,
        rows: Rows,
        plan: PredictPlan,
        *,
        group_by: Sequence[str] = (),
        once: Once | None = None,
        into: str | None = None,
        keep: bool = True,
    ) -> Iterator[SparkScored | ScoredAsWritten | ScoredHere]:
        """Run the inference once; see ``Engine.scored``."""
        some = cast(SparkRows, rows)
        begin_worker(self.session, plan)
        with telling(self.session, self.tell):
            if not keep and not group_by and once is None and is_light_work(some, plan):
                if some.are_few and may_be_held(self.session, plan, some.schema, into):
                    yield score_here(some, plan)
                else:
                    yield ScoredAsWritten(some, plan)
                return
            with scored_rows(some, plan, group_by, once, into) as scored:
                yield scored

    def follow(self, following: Following, on_slice: Callable[[Slice], None], watch: Watch) -> None:
        """Hand out what is new; see ``Engine.follow``."""
        is_done = following.checkpoint.scored_version() == following.source.version
        if self._plan is not None and (following.every_seconds is not None or not is_done):
            begin_worker(self.session, self._plan)  # else it would load a model for nothing
        follow(self.session, following, on_slice, watch, self._reach)

    def _reach(self, session: SparkSession) -> None:
        """Remember the session of a micro-batch: its workers need a new model's files too."""
        if session not in self._shipped_to:
            self._shipped_to = [self.session, session]

    @translated
    def append(self, scored: Scored | Rows, table: str, transaction: Transaction | None = None) -> bool:
        """Append rows in one commit; see ``Engine.append``."""
        if isinstance(scored, ScoredHere):
            made = few_rows.append(scored, table, transaction)
            if made is not None:
                return made
            scored = self.given(scored.table)
        return commits.append(scored, table, transaction)

    @translated
    def replace(
        self, scored: Scored | Rows, table: str, where: str | None, transaction: Transaction | None = None
    ) -> bool:
        """Replace rows in one commit; see ``Engine.replace``."""
        return commits.replace(scored, table, where, transaction)

    @translated
    def overwrite(self, rows: Rows, table: str, made_by: str) -> None:
        """Make a table of these rows alone; see ``Engine.overwrite``."""
        tables.overwrite(frame_of(rows), table, made_by)

    @translated
    def merge(
        self,
        scored: Scored | Rows,
        table: str,
        key: Sequence[str],
        transaction: Transaction | None = None,
        *,
        own: Own | None = None,
        gone: Rows | None = None,
        replaces: str | None = None,
        patch: Patch | None = None,
    ) -> bool:
        """Replace rows by their key in one commit; see ``Engine.merge``."""
        return commits.merge(scored, table, key, transaction, own=own, gone=gone, replaces=replaces, patch=patch)

    @translated
    def set_null(self, table: str, field: str, where: str, transaction: Transaction) -> bool:
        """Make a struct's field null in some rows; see ``Engine.set_null``."""
        return commits.set_null(self.session, table, field, where, transaction)

    @translated
    def delete(self, table: str, where: str, transaction: Transaction | None = None) -> int | None:
        """Delete rows; see ``Engine.delete``."""
        return commits.delete(self.session, table, where, transaction)

    @translated
    def delete_orphans(
        self, table: str, own: Own, source: Rows, key: Sequence[str], transaction: Transaction | None = None
    ) -> int | None:
        """Delete a job's rows that the source has not; see ``Engine.delete_orphans``."""
        return commits.delete_orphans(table, own, cast(SparkRows, source), key, transaction)

    @translated
    def optimize(self, table: str) -> dict[str, int]:
        """Compact a table, with the layout of images where it holds bytes."""
        return optimize_table(self.session, table)

    @translated
    def vacuum(self, table: str) -> dict[str, int]:
        """Delete files that no version within the table's retention needs."""
        return vacuum_table(self.session, table)
