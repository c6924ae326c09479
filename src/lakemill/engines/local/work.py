"""What a worker does with a piece: read it, make something of its rows, and write that where a commit will find it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from lakemill.engines.local.gathering import Gathering
from lakemill.engines.local.pieces import Piece
from lakemill.engines.local.pool import Kind, Tell, Workers, run
from lakemill.engines.local.reading import Scan, read_piece
from lakemill.engines.local.writing import FileWriter, WrittenFile
from lakemill.engines.packages import check_code
from lakemill_udfs.models.cache import CACHE
from lakemill_udfs.models.flavors import shares_threads
from lakemill_udfs.models.threads import processors
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.functions import import_function
from lakemill_udfs.steps.kinds import model_steps

TASK_COLUMN = "_task"

PieceFunction = Callable[[Any], Any]
"""An importable function, or a ``partial`` of one, from an iterator of record batches to one."""


@dataclass(frozen=True)
class MadePiece:
    """What came of a piece.

    Args:
        file: With its rows, or those of several small pieces; None where there are none, or they wait for others.
        rows: How many.
        rows_error: Of those, rows with an ``error``.
        tasks: What the task measured.
    """

    file: WrittenFile | None
    rows: int
    rows_error: int
    tasks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class PieceWork:
    """The work of ``pool.run``: pieces in, files out.

    Args:
        scan: What is read.
        function: What is made of the rows, as ``partial(predict_batches, plan)``; None for the rows as they are.
        schema: Of what is made.
        folder: Where to write it: a table's own, or one for results that are merged from there.
        imports: Whether the user's functions are imported by the worker, as a process does: long after the plan was
            made, perhaps.
        gathering: Where threads put the rows of small pieces; None where each piece is a file, as of processes, with
            which rows in memory would be lost.
    """

    scan: Scan
    function: PieceFunction | None
    schema: pa.Schema
    folder: str
    imports: bool = False
    gathering: Gathering | None = None

    def prepare(self) -> None:
        """Load the models, which threads then share, and begin to load pandas, which they need only for results.

        PyArrow loads it, 0.13 s, with the first Python value that it is given; meanwhile images are decoded.
        """
        if (plan := self._plan) is not None:
            threading.Thread(target=import_module, args=("pandas",), daemon=True).start()
            for model in plan.models:
                CACHE.get(model, threads=plan.threads, device=plan.device)

    def __call__(self, item: Piece, tell: Tell) -> MadePiece:
        """Do one piece.

        Raises:
            ConfigError: ``CODE_CHANGED`` if a function was imported that is not the plan's.
        """
        if self.imports and (plan := self._plan) is not None:
            _import_functions(plan)
        rows = rows_error = 0
        tasks: list[Mapping[str, Any]] = []
        with FileWriter(self.folder, self.schema) as writer:
            batches: Iterable[pa.RecordBatch] = read_piece(item, self.scan)
            for batch in self.function(batches) if self.function is not None else batches:
                rows += batch.num_rows
                if "error" in batch.schema.names:
                    rows_error += batch.num_rows - batch["error"].null_count
                if TASK_COLUMN in batch.schema.names:
                    tasks += batch[TASK_COLUMN].drop_null().to_pylist()
                writer.write(batch)
                tell(batch.num_rows)
            small, size = writer.take() if self.gathering is not None else ([], 0)
        file = self.gathering.add(small, size) if self.gathering is not None and small else writer.written
        return MadePiece(file, rows, rows_error, tuple(tasks))

    def smaller(self) -> PieceWork | None:
        """Return the same with half the model's batch; half the rows read at a time where there is no model."""
        plan, rows = self._plan, self.scan.batch_rows // 2
        if plan is None or not isinstance(self.function, partial):
            return replace(self, scan=replace(self.scan, batch_rows=rows)) if rows else None
        if plan.batch_rows == 1:
            return None
        rows = plan.batch_rows // 2
        less = replace(plan, batch_rows=rows, batch_bytes=max(1, plan.batch_bytes // 2))
        function = partial(self.function.func, less, *self.function.args[1:], **self.function.keywords)
        return replace(self, function=function, scan=replace(self.scan, batch_rows=min(self.scan.batch_rows, rows)))

    @property
    def _plan(self) -> PredictPlan | None:
        first = self.function.args[:1] if isinstance(self.function, partial) else ()
        return next((argument for argument in first if isinstance(argument, PredictPlan)), None)


def make_pieces(
    work: PieceWork, pieces: Iterable[Piece], workers: Workers, on_rows: Tell | None = None
) -> Iterator[MadePiece]:
    """Do some work on pieces, and yield what comes of each, in the order in which they end.

    A single piece is done in this process, as to start another takes longer, unless the job asks for processes.

    Args:
        work: What is done.
        pieces: On what.
        workers: How it is spread.
        on_rows: Told of rows done.

    Raises:
        LakemillError: as ``pool.run``.
    """
    waiting = iter(pieces)
    first = list(islice(waiting, 2))
    if len(first) < 2:
        is_asked = workers.is_forced and workers.kind == "processes" and work._plan is not None
        workers = Workers("processes" if is_asked else "threads", 1, processors())
    is_apart = workers.kind == "processes"
    gathering = Gathering(work.folder, work.schema)
    here = replace(work, gathering=gathering)
    work = replace(work, imports=True) if is_apart else here
    yield from run(work, chain(first, waiting), workers, on_rows, here)
    if (rest := gathering.rest()) is not None:
        yield MadePiece(rest, 0, 0)


_IMPORTED: set[str] = set()
"""Versions of the pipelines whose functions this process has imported and compared: later edits do not touch it."""


def _import_functions(plan: PredictPlan) -> None:
    """Import a plan's functions into this process, once, and compare the code that is there with the plan's."""
    functions, code, version = plan.pipeline.functions, dict(plan.archives), plan.pipeline.version
    if not functions or version in _IMPORTED:
        return
    for function in functions:
        import_function(function, code.get(function) if isinstance(function, str) else None)
    check_code(plan.pipeline, code)
    _IMPORTED.add(version)


def workers_for(plan: PredictPlan, cores: int, forced: str | None = None) -> Workers:
    """Return how a plan's work is spread over this machine.

    Args:
        plan: The pipeline.
        cores: Processors to use.
        forced: ``threads`` or ``processes``; None chooses by what the pipeline does.
    """
    count = max(1, cores)
    reasons = {
        PythonStep: ("processes", "a Python step does the work, and Python runs one thread at a time"),
        ModelStep: ("threads", "the model's runtime works without Python's lock: workers share one copy of it"),
        ImageStep: ("threads", "decoding images works without Python's lock"),
    }
    if forced is not None:
        given: Kind = "processes" if forced == "processes" else "threads"
        return Workers(given, count, 1, "engine.workers says so", is_forced=True)
    if not all(shares_threads(model) for model in plan.models):
        return Workers("processes", count, 1, "the model is called through Python, which runs one thread at a time")
    kinds = {ModelStep if model_steps(step) else type(step) for step in plan.pipeline.steps}
    for step, (kind, reason) in reasons.items():
        if step in kinds:
            is_light = step is PythonStep and not plan.models
            return Workers("processes" if kind == "processes" else "threads", count, 1, reason, is_light)
    return Workers("threads", count, 1, "there is no model to run")
