"""Running a pipeline's steps on one batch; a batch that raises is halved until the bad rows are alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import LakemillError, ModelError, RowError, RunError
from lakemill_udfs.images.step import Failure, ImageDecoder
from lakemill_udfs.models import CACHE, Arrays
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.formats import run_format
from lakemill_udfs.steps.functions import call_function, import_function
from lakemill_udfs.tensors.cells import contents, read_column, texts
from lakemill_udfs.tensors.column_inputs import InputColumn
from lakemill_udfs.tensors.ragged import alike, is_ragged, join
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import StepWiring

ENVIRONMENT = (ImportError, ConnectionError, TimeoutError, PermissionError)
"""Failures that are no row's fault: the task fails and Spark repeats it."""

OUT_OF_MEMORY = ("out of memory", "bad_alloc", "failed to allocate", "bad allocation")
OBJECT_TYPES = {"string": str, "binary": bytes}
STAGES = {ImageStep: "decode", ModelStep: "predict", PythonStep: "predict", FormatStep: "format"}


@dataclass
class Batch:
    """One batch on its way through the steps.

    Args:
        rows: How many rows came in.
        values: Tensors by name, of the rows that are still good.
        active: Which rows those are.
        failures: Stage and reason of each row that is not.
        elapsed_ns: Time of each step so far.
        read_ns: Time of reading the columns.
        specs: Of each of ``values``.
    """

    rows: int
    values: Arrays = field(default_factory=dict)
    active: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    failures: dict[int, Failure] = field(default_factory=dict)
    elapsed_ns: list[int] = field(default_factory=list)
    read_ns: int = 0
    specs: dict[str, TensorSpec] = field(default_factory=dict)

    def set(self, spec: TensorSpec, values: NDArray[Any]) -> None:
        """Keep a tensor of the active rows, under its name."""
        self.values[spec.name], self.specs[spec.name] = values, spec

    def drop(self, failed: Mapping[int, Failure]) -> NDArray[np.bool_]:
        """Take rows out, by position among the active ones; return which positions stay."""
        keep = np.ones(len(self.active), dtype=bool)
        for position, failure in failed.items():
            keep[position] = False
            self.failures[int(self.active[position])] = failure
        if failed:
            self.active = self.active[keep]
            self.values = {name: array[keep] for name, array in self.values.items()}
        return keep


@dataclass
class Measures:
    """Seconds of each stage, over all batches of one task."""

    predict_seconds: float = 0.0
    format_seconds: float = 0.0
    model_load_seconds: float = 0.0
    models_loaded: int = 0
    model_bytes: int = 0


class PipelineRunner:
    """A plan with its models loaded.

    Args:
        plan: What to run.
        bisect: Whether a batch that raises is halved; without it, as for a whole group, all its rows fail.
        stop_at_failure: Whether no further step runs once a row has failed, as where that is an error of the call.

    Raises:
        ModelError: a model does not load.
        ConfigError: ``FUNCTION_NOT_FOUND`` if a Python step's function cannot be imported.
    """

    def __init__(self, plan: PredictPlan, *, bisect: bool = True, stop_at_failure: bool = False) -> None:
        self.plan, self.bisect, self.stop_at_failure, self.measures = plan, bisect, stop_at_failure, Measures()
        self.max_rows = plan.batch_rows
        models, archives = iter(plan.models), dict(plan.archives)
        self.decoders: list[ImageDecoder] = []
        self._calls: list[Callable[[Arrays], Arrays] | ImageDecoder] = []
        for step in plan.pipeline.steps:
            if isinstance(step, ImageStep):
                self.decoders.append(ImageDecoder(step, plan.files))
                self._calls.append(self.decoders[-1])
            elif isinstance(step, ModelStep):
                loaded, fresh = CACHE.get(next(models), threads=plan.threads, device=plan.device)
                self.measures.model_load_seconds += loaded.load_seconds if fresh else 0.0
                self.measures.models_loaded += fresh
                self.measures.model_bytes += loaded.model_bytes
                self._calls.append(loaded.model.predict)
            elif isinstance(step, PythonStep):
                function = import_function(step.function, archives.get(step.function))
                self._calls.append(partial(call_function, function))
            else:
                self._calls.append(partial(run_format, step))

    def run(self, columns: Mapping[str, Any], rows: int) -> Batch:
        """Run all steps on a batch.

        Args:
            columns: The plan's source columns by name, each as ``read_column`` and ``contents`` take it.
            rows: Rows of each.

        Returns:
            Rows that fail are in ``failures``, the results of the others in ``values``.
        """
        started = time.perf_counter_ns()
        batch = Batch(rows, active=np.arange(rows))
        for column in self.plan.wiring.columns:
            self._read(column, columns, batch)
        batch.read_ns = time.perf_counter_ns() - started
        for step, wiring, call in zip(self.plan.pipeline.steps, self.plan.wiring.steps, self._calls, strict=True):
            if self.stop_at_failure and batch.failures:
                return batch
            started = time.perf_counter_ns()
            if isinstance(call, ImageDecoder):
                self._run_image(call, columns, batch)
            else:
                self._run_call(call, wiring, STAGES[type(step)], batch)
            batch.elapsed_ns.append(time.perf_counter_ns() - started)
            seconds = batch.elapsed_ns[-1] / 1e9
            if isinstance(step, FormatStep):
                self.measures.format_seconds += seconds
            elif not isinstance(step, ImageStep):
                self.measures.predict_seconds += seconds
        return batch

    @staticmethod
    def _read(column: InputColumn, columns: Mapping[str, Any], batch: Batch) -> None:
        """Read a column of all rows, and drop those that cannot be read; earlier columns may have dropped others."""
        values, failures = read_column(
            columns[column.spec.name], column.spec, column.stored_dtype, [columns[name] for name in column.dims]
        )
        if failures is None and len(batch.active) == batch.rows:
            batch.set(column.spec, values)
            return
        readable = np.array([failure is None for failure in failures or [None] * batch.rows], dtype=bool)
        still = np.zeros(batch.rows, dtype=bool)
        still[batch.active] = True
        failed = [(at, failures[row]) for at, row in enumerate(batch.active) if failures is not None]
        batch.drop({at: ("cast", failure) for at, failure in failed if failure is not None})
        batch.set(column.spec, values[still[readable]])

    def _run_image(self, decoder: ImageDecoder, columns: Mapping[str, Any], batch: Batch) -> None:
        step = decoder.step
        encoded = contents(columns[step.column])
        paths = texts(columns[step.path_column]) if step.path_column in columns else [None] * batch.rows
        images, failures = decoder.run([encoded[row] for row in batch.active], [paths[row] for row in batch.active])
        batch.drop({at: failure for at, failure in enumerate(failures) if failure is not None})
        batch.set(step.spec, images)

    def _run_call(self, call: Callable[[Arrays], Arrays], wiring: StepWiring, stage: str, batch: Batch) -> None:
        inputs = {name: batch.values[source] for name, source in wiring.inputs}
        ragged = [name for name, source in wiring.inputs if is_ragged(inputs[name], batch.specs[source])]
        parts: list[Arrays] = []
        places: list[NDArray[np.int64]] = []
        failed: dict[int, Failure] = {}
        for members, group in alike(inputs, ragged, len(batch.active)):
            for name in wiring.casts.keys() & group.keys():
                group[name] = group[name].astype(wiring.casts[name])
            start = 0
            while start < len(members):
                rows = min(self.max_rows, len(members) - start) if self.bisect else len(members)
                here, part_inputs = members, group
                if rows < len(members):
                    here = members[start : start + rows]
                    part_inputs = {name: array[start : start + rows] for name, array in group.items()}
                part, errors = self._attempt(call, part_inputs, rows, wiring, stage)
                parts += part
                places.append(np.delete(here, list(errors)) if errors else here)
                failed.update({int(here[at]): (stage, error) for at, error in errors.items()})
                start += rows
        if failed:
            batch.drop(failed)
        order = np.argsort(np.concatenate(places)) if len(places) > 1 and ragged else None
        for spec, name in wiring.outputs:
            result = join([part[spec.name] for part in parts], spec)
            batch.set(
                spec if spec.name == name else replace(spec, name=name), result if order is None else result[order]
            )

    def observe_last(self, observer: Callable[[Arrays], None]) -> None:
        """Show ``observer`` what the last step, a model or function, gives for each batch, before it is checked."""
        call = self._calls[-1]
        assert not isinstance(call, ImageDecoder)  # noqa: S101 -- see the docstring

        def observed(inputs: Arrays) -> Arrays:
            result = call(inputs)
            observer(result)
            return result

        self._calls[-1] = observed

    def _attempt(
        self, call: Callable[[Arrays], Arrays], inputs: Arrays, rows: int, wiring: StepWiring, stage: str
    ) -> tuple[list[Arrays], dict[int, RowError]]:
        """Call once; on failure halve. Returns the results in order and the failures by position."""
        try:
            result = call(inputs)
            return [{spec.name: checked(result, spec, rows) for spec, _ in wiring.outputs}], {}
        except ENVIRONMENT:
            raise
        except Exception as error:  # a user's model may raise anything; the rows it raises for get it as their error
            if isinstance(error, LakemillError) and not isinstance(error, RowError):
                raise
            if _is_out_of_memory(error):
                if rows == 1:
                    raise RunError(
                        "OUT_OF_MEMORY",
                        "there is no memory for a batch of one row.",
                        hint="use fewer tasks a machine, or a smaller model.",
                    ) from None
                self.max_rows = max(1, rows // 2)
            elif rows == 1 or not self.bisect:
                return [], dict.fromkeys(range(rows), _row_error(error, stage))
        half = rows // 2
        left, left_failed = self._attempt(
            call, {name: array[:half] for name, array in inputs.items()}, half, wiring, stage
        )
        right, right_failed = self._attempt(
            call, {name: array[half:] for name, array in inputs.items()}, rows - half, wiring, stage
        )
        return left + right, left_failed | {half + at: error for at, error in right_failed.items()}


def checked(result: Arrays, spec: TensorSpec, rows: int) -> NDArray[Any]:
    """Return one output of a step if it is what was declared.

    Raises:
        RowError: ``OUTPUT_ROWS`` if it has another number of rows than went in; the batch is halved to find which.
        ModelError: ``OUTPUT_MISSING``, ``OUTPUT_SHAPE`` or ``OUTPUT_DTYPE``, which no single row is to blame for.
    """
    if spec.name not in result:
        raise ModelError("OUTPUT_MISSING", f"the step's result has no '{spec.name}'; it has: {', '.join(result)}.")
    array = np.asarray(result[spec.name])
    if not array.ndim or len(array) != rows:
        raise RowError(
            "OUTPUT_ROWS", f"{spec.name}: {rows} rows went in, {len(array) if array.ndim else 'one value'} came out."
        )
    if is_ragged(array, spec):
        for cell in array:
            checked({spec.name: np.asarray(cell)[np.newaxis]}, spec, 1)
        return array
    if not spec.accepts(array.shape[1:]):
        expected = ", ".join("?" if size is None else str(size) for size in (rows, *spec.shape))
        raise ModelError(
            "OUTPUT_SHAPE",
            f"{spec.name}: expected ({expected}), got ({', '.join(map(str, array.shape))}).",
            hint="correct the declared outputs, or the model.",
        )
    fits = _holds(array, OBJECT_TYPES[spec.dtype]) if spec.dtype in OBJECT_TYPES else array.dtype == spec.numpy_dtype
    if not fits:
        raise ModelError(
            "OUTPUT_DTYPE",
            f"{spec.name}: expected {spec.dtype}, got {array.dtype}.",
            hint="correct the declared outputs, or the model.",
        )
    return array


def _holds(array: NDArray[Any], kind: type) -> bool:
    return (array.dtype.kind == "U" and kind is str) or (
        array.dtype.kind == "O" and all(value is None or isinstance(value, kind) for value in array.flat)
    )


def _row_error(error: Exception, stage: str) -> RowError:
    if isinstance(error, RowError):
        return error
    return RowError(
        "MODEL_FAILED" if stage == "predict" else "STEP_FAILED", f"the step raised {type(error).__name__} for this row."
    )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY)
