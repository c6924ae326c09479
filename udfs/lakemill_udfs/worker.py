"""``predict_batches``: the one inner loop that every mode shares. Record batches of the source in, of predictions out.

Ship it as ``functools.partial(predict_batches, plan)``: it is pickled by name, so the models it loads stay in this
worker for all tasks.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import RowError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.models.cache import CACHE, CACHED_MODELS
from lakemill_udfs.plan import ERROR, METADATA, PredictPlan
from lakemill_udfs.repeated import RepeatedStruct
from lakemill_udfs.row_models import branch_column, error_column, in_rows, models_column
from lakemill_udfs.steps.check_fit import inputs_read
from lakemill_udfs.steps.checks import compile_check, judge, run_checks
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.tensors.columns import write_tensor

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)

PLACE = "__column_{}"
"""Columns may come to a worker named by their place: PySpark's ``mapInArrow`` looks names up without quotes."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def predict_batches(plan: PredictPlan, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Score record batches.

    Args:
        plan: What the driver worked out.
        batches: Rows with ``plan.source_columns``.

    Yields:
        One row for each row that came in, in order: the passthrough columns, then ``time``, ``in``, ``out``,
        ``anomaly`` as the plan asks, then ``error`` and ``metadata``, and ``_task`` if the plan measures tasks.

    Raises:
        LakemillError: the environment is broken: a model does not load or does not keep its contract, a module is
            missing, or storage does not answer.
    """
    _limit_threads(plan)
    clock = _TaskClock()
    runner, writer = PipelineRunner(plan), None
    _settle(frozenset(CACHE.entries))
    waiting: pa.Table | None = None
    for table in fill((with_names(plan, batch) for batch in clock.timed(batches)), plan.pass_rows, plan.batch_bytes):
        if waiting is not None:
            yield _record_batch(waiting, None, plan)
        batch = runner.run(columns_of(table), table.num_rows)
        writer = writer or ResultWriter(plan)  # not before: its first values make pyarrow load pandas
        waiting = writer.table(table, batch)
        clock.count(table, batch)
    if waiting is not None:
        yield _record_batch(waiting, clock.task(runner), plan)


def load_ahead(plan: PredictPlan, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Load a plan's models before there are rows for them; the first task that uses one says what it took.

    Not those of keys, of which the rows say which are used, nor more than stay in a worker between pipelines.

    Args:
        plan: What the driver worked out.
        batches: Read and dropped.

    Yields:
        Nothing.
    """
    _limit_threads(plan)
    for _ in batches:
        pass  # PySpark ends a worker that leaves some
    has_keys = any(isinstance(step, KeyedStep) for step in plan.pipeline.steps)
    if not has_keys and len(plan.models) <= CACHED_MODELS:
        for model in plan.models:
            CACHE.get(model, threads=plan.threads, device=plan.device, most=len(plan.models))
    yield from ()


def _limit_threads(plan: PredictPlan) -> None:
    """Say how many threads a task has, before a library that asks is imported."""
    if plan.threads:
        for variable in THREAD_VARIABLES:
            os.environ.setdefault(variable, str(plan.threads))


@lru_cache(maxsize=1)
def _settle(loaded: frozenset[Any]) -> None:
    """Take what is loaded by now out of the garbage collector's sight, once for each set of loaded models.

    PySpark collects garbage after every task. Modules and models are hundreds of thousands of objects that stay: to
    look at each of them again takes 30 ms with pyarrow and numpy alone, and keeps the processor from the next task.
    """
    gc.collect()
    gc.freeze()


def predict_group(plan, group):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- Spark reads hints, and fails on a partial's
    """Score one whole group at once, for ``applyInArrow``; if it fails, each of its rows gets the reason.

    Args:
        plan: What the driver worked out.
        group: All rows of the group, an Arrow table.

    Returns:
        One row for each row of the group, an Arrow table like ``predict_batches`` yields.
    """
    return predict_whole(plan, group)


def predict_whole(plan: PredictPlan, table: pa.Table) -> pa.Table:
    """Score a table as one batch, which fails as one; a table without rows gives the columns without rows."""
    table = with_names(plan, table)
    batch = PipelineRunner(plan, bisect=False).run(columns_of(table), table.num_rows)
    return pa.Table.from_batches([_record_batch(ResultWriter(plan).table(table, batch), None, plan)])


def with_names(plan: PredictPlan, rows: Rows) -> Rows:
    """Return a batch or table whose columns are named as in the plan again, whether they were named by their place."""
    places = [PLACE.format(place) for place in range(len(plan.source_columns))]
    if rows.schema.names != places:
        return rows
    named: Rows = rows.rename_columns(list(plan.source_columns))
    return named


def fill(batches: Iterable[pa.RecordBatch], max_rows: int, max_bytes: int) -> Iterator[pa.Table]:
    """Regroup record batches, filling across them, without a copy.

    Args:
        batches: Any sizes.
        max_rows: Rows of one table at most.
        max_bytes: Bytes of one table at most, a batch's rows taken as equal in size; a larger row comes alone.
    """
    parts: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start = 0
        row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
        while start < batch.num_rows:
            room = min(max_rows - rows, max(1 if not rows else 0, (max_bytes - size) // row_bytes))
            take = min(room, batch.num_rows - start)
            if take > 0:
                parts.append(batch.slice(start, take))
                rows, size, start = rows + take, size + take * row_bytes, start + take
            if rows >= max_rows or take <= 0 or size >= max_bytes:
                yield pa.Table.from_batches(parts)
                parts, rows, size = [], 0, 0
    if parts:
        yield pa.Table.from_batches(parts)


def columns_of(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return a table's columns by name."""
    return dict(zip(table.column_names, table.columns, strict=True))


class ResultWriter:
    """Lays a batch's results out as a predictions table.

    Args:
        plan: Says which columns there are.
    """

    def __init__(self, plan: PredictPlan) -> None:
        self.plan = plan
        archives = dict(plan.archives)
        self._checks = {
            check.name: compile_check(check, archives.get(check.function)) for check in plan.pipeline.checks
        }
        self._read = inputs_read(self._checks.values(), dict.fromkeys((*plan.passthrough, *plan.input_columns)))
        self._models = pa.array(
            [{"name": model.name, "version": model.version, "sha256": model.sha256} for model in plan.models],
            METADATA.field("models").type.value_type,
        )
        self._metadata = RepeatedStruct(plan.constant_metadata, plan.metadata_type, "elapsed_ns")

    def table(self, source: pa.Table, batch: Batch) -> pa.Table:
        """Return one row for each row of ``source``; ``batch`` holds what became of it."""
        plan = self.plan
        columns: dict[str, Any] = {name: source[name] for name in plan.passthrough}
        if plan.challengers is not None:
            return pa.table(columns | self._challengers(batch) | self._always(batch, pa.nulls(batch.rows, ERROR)))
        out = pa.StructArray.from_arrays(
            [write_tensor(batch.values[spec.name], spec) for spec in plan.wiring.outputs], fields=list(plan.out_type)
        )
        anomaly, out = self._judge(source, batch, out)
        if "time" in plan.parts:
            columns["time"] = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), batch.rows)
        if "in" in plan.parts:
            columns["in"] = _struct_of(source, plan.input_columns)
        if "out" in plan.parts:
            columns["out"] = in_rows(out, batch)
            columns |= self._challengers(batch)
        if "anomaly" in plan.parts:
            columns["anomaly"] = in_rows(anomaly, batch)
        return pa.table(columns | self._always(batch, error_column(batch)))

    def _challengers(self, batch: Batch) -> dict[str, pa.Array]:
        types = self.plan.branch_types
        return {
            name: branch_column(branch, batch.branches[branch.name], types[name])
            for branch in self.plan.branches
            if (name := f"out_{branch.name}") in types
        }

    def _always(self, batch: Batch, errors: pa.Array) -> dict[str, pa.Array]:
        """Return the columns that are always there."""
        own = {"models": models_column(batch, self._models)} if self.plan.has_traffic else {}
        each = [step_ns // max(1, batch.rows) for step_ns in batch.elapsed_ns]
        return {"error": errors, "metadata": self._metadata.array(batch.rows, each, own)}

    def _judge(self, source: pa.Table, batch: Batch, out: pa.StructArray) -> tuple[pa.StructArray, pa.StructArray]:
        """Run the checks; a row for which they raise gets that as its error."""
        if not self._checks:
            return run_checks({}, out, out), out
        inputs = _struct_of(source, self._read)
        if len(batch.active) < batch.rows:
            inputs = inputs.take(pa.array(batch.active))
        anomaly, failed = judge(self._checks, inputs, out)
        kept = batch.drop(
            {
                place: ("check", RowError("CHECK_FAILED", f"a check raised {kind} for this row."))
                for place, kind in failed.items()
            }
        )
        if not len(batch.active):
            return pa.array([], self.plan.anomaly_type), out.slice(0, 0)
        return anomaly.cast(self.plan.anomaly_type), out.filter(pa.array(kept)) if failed else out


def _struct_of(source: pa.Table, names: tuple[str, ...]) -> pa.StructArray:
    arrays = [_combined(source[name]) for name in names]
    if not arrays:
        return pa.array([{}] * source.num_rows, pa.struct([]))
    return pa.StructArray.from_arrays(arrays, fields=[source.schema.field(name) for name in names])


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _record_batch(table: pa.Table, task: dict[str, Any] | None, plan: PredictPlan) -> pa.RecordBatch:
    arrays = [_combined(column) for column in table.columns]
    names = list(table.column_names)
    if plan.task_metrics:
        said = [None if task is None else json.dumps(task, default=datetime.isoformat)] if plan.is_light else [task]
        arrays.append(pa.concat_arrays([pa.nulls(table.num_rows - 1, plan.task_type), pa.array(said, plan.task_type)]))
        names.append("_task")
    return pa.RecordBatch.from_arrays(arrays, names=names)


class _TaskClock:
    """Counts and times what one task does."""

    def __init__(self) -> None:
        self.started, self._began = datetime.now(UTC), time.perf_counter()
        self.scan_wait_seconds = 0.0
        self.rows = self.rows_error = self.bytes = self.batches = self.batch_rows = 0

    def timed(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.scan_wait_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def count(self, table: pa.Table, batch: Batch) -> None:
        self.rows += batch.rows
        self.rows_error += len(batch.failures)
        self.bytes += table.nbytes
        self.batches += 1
        self.batch_rows = max(self.batch_rows, batch.rows)

    def task(self, runner: PipelineRunner) -> dict[str, Any]:
        measures = runner.measures
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": self.started,
            "seconds": time.perf_counter() - self._began,
            "rows": self.rows,
            "rows_error": self.rows_error,
            "bytes": self.bytes,
            "batches": self.batches,
            "batch_rows": self.batch_rows,
            "scan_wait_seconds": self.scan_wait_seconds,
            "decode_seconds": sum(decoder.decode_seconds for decoder in runner.decoders),
            "preprocess_seconds": sum(decoder.preprocess_seconds for decoder in runner.decoders),
            "predict_seconds": measures.predict_seconds,
            "format_seconds": measures.format_seconds,
            "model_load_seconds": measures.model_load_seconds,
            "model_warm_up_seconds": measures.model_warm_up_seconds,
            "models_loaded": measures.models_loaded,
            "model_bytes": measures.model_bytes,
            "peak_memory_bytes": peak,
            "image_warnings": sum(decoder.warnings for decoder in runner.decoders),
            "models_dropped": measures.models_dropped,
            "cascade_rows": measures.cascade_rows,
            "cascade_rows_then": measures.cascade_rows_then,
        }
