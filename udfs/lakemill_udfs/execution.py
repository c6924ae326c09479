"""Running a pipeline's steps on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.failures import foreign
from lakemill_udfs.images.step import Failure, ImageDecoder
from lakemill_udfs.models.cache import CACHE
from lakemill_udfs.models.model import Arrays, ModelSpec
from lakemill_udfs.models.one_array import spread
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.step_call import StepCall
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep, Step
from lakemill_udfs.steps.formats import run_format
from lakemill_udfs.steps.functions import call_function, import_function
from lakemill_udfs.tensors.cells import contents, read_column, texts
from lakemill_udfs.tensors.column_inputs import InputColumn
from lakemill_udfs.tensors.ragged import is_ragged
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import StepWiring

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
        models, archives = iter(plan.models), dict(plan.archives)
        self.decoders: list[ImageDecoder] = []
        self._calls: list[StepCall | ImageDecoder] = []
        for step, wiring in zip(plan.pipeline.steps, plan.wiring.steps, strict=True):
            if isinstance(step, ImageStep):
                self.decoders.append(ImageDecoder(step, plan.files))
                self._calls.append(self.decoders[-1])
            elif isinstance(step, ModelStep):
                self._add(step, wiring, self._load(next(models)))
            elif isinstance(step, PythonStep):
                function = import_function(step.function, archives.get(step.function))
                self._add(step, wiring, partial(call_function, foreign(function)))
            else:
                self._add(step, wiring, partial(run_format, step))

    def _load(self, spec: ModelSpec) -> Callable[[Arrays], Arrays]:
        loaded, _ = CACHE.get(spec, threads=self.plan.threads, device=self.plan.device)
        self.measures.model_load_seconds += 0.0 if loaded.is_counted else loaded.load_seconds
        self.measures.models_loaded += not loaded.is_counted
        loaded.is_counted = True
        self.measures.model_bytes += loaded.model_bytes
        return spread(loaded.model.predict, spec.inputs)

    def _add(self, step: Step, wiring: StepWiring, call: Callable[[Arrays], Arrays]) -> None:
        self._calls.append(
            StepCall(
                call,
                wiring,
                STAGES[type(step)],
                self.plan.batch_rows,
                halves=self.bisect,
                foreign=not isinstance(step, FormatStep),
                stop_at_first=self.stop_at_failure,
            )
        )

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
                self._run_call(call, wiring, batch)
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

    @staticmethod
    def _run_call(call: StepCall, wiring: StepWiring, batch: Batch) -> None:
        inputs = {name: batch.values[source] for name, source in wiring.inputs}
        ragged = [name for name, source in wiring.inputs if is_ragged(inputs[name], batch.specs[source])]
        outputs, failed = call.run(inputs, ragged, len(batch.active))
        if failed:
            batch.drop({place: (call.stage, error) for place, error in failed.items()})
        for spec, name in wiring.outputs:
            batch.set(spec if spec.name == name else replace(spec, name=name), outputs[spec.name])

    def observe_last(self, observer: Callable[[Arrays], None]) -> None:
        """Show ``observer`` what the last step, a model or function, gives for each batch, before it is checked."""
        last = self._calls[-1]
        assert not isinstance(last, ImageDecoder)  # noqa: S101 -- see the docstring
        call = last.call

        def observed(inputs: Arrays) -> Arrays:
            result = call(inputs)
            observer(result)
            return result

        last.call = observed
