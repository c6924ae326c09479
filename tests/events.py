"""What people, tools and crashes do to a job's tables and its checkpoint, and what must be true after each run.

A world is a source, a job over it and a dictionary in memory that knows which rows the source has. The property tests
and ``make chaos`` draw from the same events.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.conditional import TableState
from lakemill.predict import incremental, modes, resuming
from lakemill.predict.redo import reset_job, retry_errors, undo_run
from lakemill.predict.status import job_status

# A module of its own: each run looks at all files of its function's package, and those of `tests` are many.
sys.path.insert(0, str(Path(__file__).parent / "local"))

SOURCE_EVENTS = frozenset({"overwrite_source", "restore_source", "delete_source_rows"})

REFUSALS = {
    "KEY_NULL": frozenset({"any keys"}),
    "KEY_NOT_UNIQUE": frozenset({"any keys"}),
    "SOURCE_CHANGED": SOURCE_EVENTS,
    "SOURCE_VERSIONS_GONE": frozenset({"vacuum"}),
    "SOURCE_REPLACED": frozenset({"replace_source"}),
    "RUN_UNKNOWN": frozenset({"undo"}),
    "TABLE_NOT_FOUND": frozenset({"retry", "undo", "reset"}),
    "CHECKPOINT_NOT_OURS": frozenset({"cut_checkpoint"}),
}
"""Codes that say a way on, and what must have happened for them; the world follows that way by a ``full`` run."""

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64())])


class Killed(BaseException):
    """What stands for SIGKILL within one process."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a job's predictions, by the rows' ``x``; nothing if all is empty.

    Args:
        lost: Rows of the source without one.
        doubled: Rows with more than one.
        foreign: Predictions of rows that the source has not.
    """

    lost: frozenset[int] = frozenset()
    doubled: frozenset[int] = frozenset()
    foreign: frozenset[int] = frozenset()


@dataclass
class World:
    """A lake, and what is known of it.

    Args:
        lake: Its folder.
        engines: ``local``, ``spark`` or both; before each event chance takes one.
        changes: ``append`` or ``upsert``.
        keys: What a new row's key is drawn from: ``unique``, or ``any`` for nulls and repeats too.
        session: Spark's.
        names: Of the source, the output and the job.
    """

    lake: Path
    engines: tuple[str, ...] = ("local",)
    changes: str = "append"
    keys: str = "unique"
    session: Any = None
    names: tuple[str, str, str] = ("source", "output", "job")
    rows: dict[int, int | None] = field(default_factory=dict)
    """The source: ``x``, which is unique, and the key."""
    deleted: set[int] = field(default_factory=set)
    """``x`` of the predictions that somebody deleted."""
    next_x: int = 0
    said: list[str] = field(default_factory=list)
    happened: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.engine = self.engines[0]
        if self.keys == "any":
            self.happened.add("any keys")

    @property
    def spark(self) -> Any:
        """Return the session, where the next run is on Spark."""
        return self.session if self.engine == "spark" else None

    @property
    def source(self) -> str:
        return str(self.lake / self.names[0])

    @property
    def output(self) -> str:
        return str(self.lake / self.names[1])

    @property
    def quarantine(self) -> str:
        return f"{self.output}_failed"

    @property
    def checkpoint(self) -> Path:
        return self.lake / f"{self.names[1]}_checkpoint" / self.names[2]

    def config(self, name: str = "job", **more: Any) -> PredictConfig:
        outputs = {"y": {"dtype": "float64"}}
        step = {"function": "progress_functions:twice", "inputs": {"x": "x"}, "outputs": outputs}
        values: dict[str, Any] = {
            "name": name,
            "engine__name": self.engine,
            "engine__max_bytes_per_trigger": "1500",
            "source__table": self.source,
            "source__key": ["id"],
            "source__columns": ["x"],
            "source__changes": self.changes,
            "pipeline__steps": [{"python": step}],
            "output__table": self.output,
            "quarantine__table": self.quarantine,
        }
        return PredictConfig.load(**(values | more))

    # What happens

    def happen(self, event: str, chance: random.Random) -> None:
        """Let one of ``EVENTS`` happen, on one of the engines."""
        self.engine = chance.choice(self.engines)
        self.said.append(f"-- {event}, {self.engine}")
        self.happened.add(event)
        EVENTS[event](self, chance)

    def append(self, chance: random.Random) -> None:
        """Append rows to the source."""
        count, rows = chance.randint(1, 4), []
        for _ in range(count):
            key: int | None = self.next_x
            if self.keys == "any":
                key = chance.choice([None, 1, 2, self.next_x])
            rows.append({"id": key, "x": self.next_x})
            self.rows[self.next_x] = key
            self.next_x += 1
        table = pa.Table.from_pylist(rows, SCHEMA)
        feed = {"delta.enableChangeDataFeed": "true"}
        write_deltalake(self.source, table, mode="append", configuration=feed)

    def run(self, chance: random.Random) -> None:
        """Score what is new."""
        self.go(lambda: predict_table(self.config(), self.spark, progress=self.said.append))

    def full(self, chance: random.Random) -> None:
        """Score everything."""
        self.go(lambda: predict_table(self.config(mode="full"), self.spark))
        self.deleted.clear()

    def missing(self, chance: random.Random) -> None:
        """Score what has no prediction."""
        self.go(lambda: predict_table(self.config(mode="missing"), self.spark))

    def where(self, chance: random.Random) -> None:
        """Score a part again."""
        least = chance.randint(0, self.next_x)
        self.go(lambda: predict_table(self.config(mode="where", source__where=f"x >= {least}"), self.spark))

    def retry(self, chance: random.Random) -> None:
        """Score the rows with errors again."""
        self.go(lambda: retry_errors(self.config(), self.spark))

    def undo(self, chance: random.Random) -> None:
        """Undo one of the runs."""
        runs = sorted({row["metadata"]["run_id"] for row in self.found()})
        if runs:
            self.go(lambda: undo_run(self.config(), chance.choice(runs), self.spark))

    def reset(self, chance: random.Random) -> None:
        """Start over."""
        self.go(lambda: reset_job(self.config(), self.spark))

    def other_job(self, chance: random.Random) -> None:
        """Let another job write into the same output."""
        self.go(lambda: predict_table(self.config("other", mode="full"), self.spark))

    def killed_run(self, chance: random.Random) -> None:
        """Let a run die at a step."""
        mode = chance.choice(["incremental", "incremental", "full", "missing"])
        with dying(chance, Killed if self.engine == "local" else RuntimeError):
            self.go(lambda: predict_table(self.config(mode=mode), self.spark))

    def restore_output(self, chance: random.Random) -> None:
        """RESTORE the output to an earlier version."""
        if (table := self._output()) is not None:
            _restore(table, chance)

    def delete_rows(self, chance: random.Random) -> None:
        """Delete predictions by hand."""
        if (table := self._output()) is not None:
            least = chance.randint(0, self.next_x)
            self.deleted |= {x for x in self.rows if x >= least}
            table.delete(f"x >= {least}")

    def delete_some(self, chance: random.Random) -> None:
        """Delete a few predictions by hand."""
        if (table := self._output()) is not None and self.rows:
            victim = chance.choice(sorted(self.rows))
            self.deleted.add(victim)
            table.delete(f"x = {victim}")

    def optimize(self, chance: random.Random) -> None:
        """Compact the tables."""
        for table in (self.source, self.output):
            if DeltaTable.is_deltatable(table):
                DeltaTable(table).optimize.compact()

    def vacuum(self, chance: random.Random) -> None:
        """Delete files that the newest versions do not need."""
        for table in (self.source, self.output):
            if DeltaTable.is_deltatable(table):
                DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)

    def lose_output(self, chance: random.Random) -> None:
        """Delete the output."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.deleted.clear()

    def lose_checkpoint(self, chance: random.Random) -> None:
        """Delete the checkpoint."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def keep_checkpoint(self, chance: random.Random) -> None:
        """Make a backup of the checkpoint."""
        if self.checkpoint.is_dir():
            shutil.rmtree(self.lake / "kept", ignore_errors=True)
            shutil.copytree(self.checkpoint, self.lake / "kept")

    def older_checkpoint(self, chance: random.Random) -> None:
        """Restore that backup."""
        if (self.lake / "kept").is_dir():
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            shutil.copytree(self.lake / "kept", self.checkpoint)

    def cut_checkpoint(self, chance: random.Random) -> None:
        """Cut a file of the checkpoint short, or lose it."""
        files = sorted(file for file in self.checkpoint.rglob("*") if file.is_file())
        if files:
            file = chance.choice(files)
            if chance.random() < 0.5:
                file.unlink()
            else:
                file.write_bytes(file.read_bytes()[: chance.randint(0, file.stat().st_size)])

    def overwrite_source(self, chance: random.Random) -> None:
        """Overwrite the source with other rows, as a nightly export does."""
        if DeltaTable.is_deltatable(self.source):
            self.rows.clear()
            rows = [{"id": self.next_x + number, "x": self.next_x + number} for number in range(chance.randint(1, 3))]
            self.rows |= {row["x"]: row["id"] for row in rows}
            self.next_x += len(rows)
            write_deltalake(self.source, pa.Table.from_pylist(rows, SCHEMA), mode="overwrite")

    def restore_source(self, chance: random.Random) -> None:
        """RESTORE the source to an earlier version."""
        if DeltaTable.is_deltatable(self.source):
            _restore(DeltaTable(self.source), chance)
            self.read_source()

    def delete_source_rows(self, chance: random.Random) -> None:
        """Delete rows of the source."""
        if DeltaTable.is_deltatable(self.source):
            DeltaTable(self.source).delete(f"x >= {chance.randint(0, self.next_x)}")
            self.read_source()

    def replace_source(self, chance: random.Random) -> None:
        """Put another table into the source's place, with as many commits."""
        if DeltaTable.is_deltatable(self.source):
            versions = DeltaTable(self.source).version() + 1
            shutil.rmtree(self.source)
            self.rows.clear()
            for _ in range(versions):
                self.append(chance)

    # What must be true

    def go(self, work: Callable[[], Any]) -> None:
        """Do something; where it is refused, there must be a reason."""
        try:
            work()
        except LakemillError as error:
            self._must_be_due(error)
            self.said.append(str(error))

    def _must_be_due(self, error: LakemillError) -> None:
        """Raise an error again that nothing that happened is a reason for."""
        reasons = REFUSALS.get(error.code, frozenset()) & self.happened
        if not reasons or (error.code == "SOURCE_CHANGED" and self.changes == "upsert"):
            raise error

    def score(self, chance: random.Random) -> None:
        """Score what is new, by a full run where that is the way on."""
        try:
            predict_table(self.config(), self.spark, progress=self.said.append)
        except LakemillError as error:
            self._must_be_due(error)
            self.said.append(f"refused: {error}")
            if error.code == "CHECKPOINT_NOT_OURS":
                shutil.rmtree(self.checkpoint)
                self.score(chance)
            else:
                self.full(chance)

    def check(self, chance: random.Random) -> None:
        """Score what is new and compare with the dictionary; then there is nothing to do, on any engine."""
        if not DeltaTable.is_deltatable(self.source):
            return
        self.score(chance)
        self.judge()
        for engine in self.engines:
            self.engine = engine
            assert predict_table(self.config(), self.spark).batches == 0

    def found(self) -> list[dict[str, Any]]:
        """Return the job's predictions, by an independent reader."""
        return [row for row in _rows(self.output) if row["metadata"]["job"] == "job"]

    def verdict(self) -> Verdict:
        """Compare the predictions with the dictionary."""
        counts = Counter(row["x"] for row in self.found())
        return Verdict(
            frozenset(self.rows.keys() - counts.keys() - self.deleted),
            frozenset(x for x, count in counts.items() if count > 1),
            frozenset(counts.keys() - self.rows.keys()),
        )

    def judge(self) -> None:
        """Make sure that the predictions are those of the dictionary, and that ``status`` counts them."""
        assert self.verdict() == Verdict(), self.said
        found = self.found()
        for row in found:
            assert (row["out"] or {}).get("y") == (None if row["x"] % 10 == 3 else 2.0 * row["x"])
            assert row["id"] == self.rows[row["x"]]
        failed = {_commit_of(row) for row in found if row["error"]}
        copies = self.copies()
        assert (failed - copies.keys(), {row for row in copies if copies[row] > 1}) == (set(), set()), self.said
        status = job_status(self.config(), self.spark)
        assert (status.rows, status.source_rows) == (len(found), len(self.rows))

    def copies(self) -> Counter[tuple[int, str, str]]:
        """Return how often each row of a commit is in the quarantine."""
        return Counter(map(_commit_of, _rows(self.quarantine)))

    def read_source(self) -> None:
        """Let the dictionary say what the source has, where others wrote to it."""
        self.rows = {row["x"]: row["id"] for row in _rows(self.source)}

    def _output(self) -> DeltaTable | None:
        return DeltaTable(self.output) if DeltaTable.is_deltatable(self.output) else None


def _rows(table: str) -> list[dict[str, Any]]:
    """Return the rows of a table, if there is one, by an independent reader."""
    rows = DeltaTable(table).to_pyarrow_table().to_pylist() if DeltaTable.is_deltatable(table) else []
    return cast(list[dict[str, Any]], rows)


def _commit_of(row: dict[str, Any]) -> tuple[int, str, str]:
    """Return which row it is, and whose commit made it."""
    return row["x"], row["metadata"]["job"], row["metadata"]["run_id"]


def _restore(table: DeltaTable, chance: random.Random) -> None:
    version = chance.randint(0, table.version())
    if version < table.version():
        with contextlib.suppress(DeltaError):  # its files may be gone
            table.restore(version)


STEPS = (
    (TableState, "commit"),
    (TableState, "look"),
    (incremental, "write_note"),
    (incremental, "copy_batch"),
    (modes, "write_quarantine"),
    (resuming, "write_note"),
    (Checkpoint, "finish"),
    (Checkpoint, "begin"),
    (Checkpoint, "claim"),
    (Checkpoint, "remove"),
)


@contextmanager
def dying(chance: random.Random, death: type[BaseException] = Killed) -> Iterator[None]:
    """Let this process do as if it were killed before or after one of the steps of a run, the first or a later time.

    Args:
        chance: Says where.
        death: What the step raises; the thread in which Spark calls micro-batches takes an ``Exception`` only.
    """
    place, name = chance.choice(STEPS)
    before, calls, original = chance.random() < 0.5, chance.randint(1, 3), getattr(place, name)
    made, is_dead = 0, False

    def last(*arguments: Any, **named: Any) -> Any:
        nonlocal made, is_dead
        made += 1
        is_dead = is_dead or made == calls
        if made == calls and before:
            raise death
        result = original(*arguments, **named)
        if made == calls:
            raise death
        return result

    setattr(place, name, last)
    try:
        yield
    except (death, LakemillError):  # Spark says of the thread's end what it makes of it
        if not is_dead:
            raise
    finally:
        setattr(place, name, original)


EVENTS = {
    name: getattr(World, name)
    for name in (
        "append",
        "run",
        "full",
        "missing",
        "where",
        "retry",
        "undo",
        "reset",
        "other_job",
        "killed_run",
        "restore_output",
        "delete_rows",
        "delete_some",
        "optimize",
        "vacuum",
        "lose_output",
        "lose_checkpoint",
        "keep_checkpoint",
        "older_checkpoint",
        "cut_checkpoint",
        "overwrite_source",
        "restore_source",
        "delete_source_rows",
        "replace_source",
    )
}
"""By name."""


def live(world: World, events: Sequence[str], seed: int) -> None:
    """Let things happen one after the other; then nothing may be lost, doubled or foreign, nor after more rows."""
    chance = random.Random(seed)  # noqa: S311 -- no secret
    world.append(chance)
    for event in events:
        world.happen(event, chance)
    world.check(chance)
    world.append(chance)
    world.check(chance)
