"""Running a pipeline's steps on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lakemill_udfs.batch import Batch
from lakemill_udfs.cascade import CascadeCall
from lakemill_udfs.errors import LakemillError, RowError
from lakemill_udfs.failures import foreign
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.keyed import KeyedCall
from lakemill_udfs.measures import Measures, measured
from lakemill_udfs.models.cache import CACHE
from lakemill_udfs.models.model import Arrays, ModelSpec
from lakemill_udfs.models.one_array import spread
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.step_call import StepCall
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.checks import compile_check
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.formats import run_format
from lakemill_udfs.steps.functions import call_function, import_function
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import Step, TrafficStep, model_steps
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep, SplitStep
from lakemill_udfs.tensors.cells import contents, read_column, texts
from lakemill_udfs.tensors.column_inputs import InputColumn
from lakemill_udfs.tensors.ragged import is_ragged, join
from lakemill_udfs.traffic import EnsembleCall, Member, ShadowCall, SplitCall
from lakemill_udfs.wiring import Branch, StepWiring

TrafficCall = SplitCall | EnsembleCall | ShadowCall | KeyedCall | CascadeCall
Call = StepCall | ImageDecoder | TrafficCall


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
        self._kept = sum(len(model_steps(step)) for step in plan.pipeline.steps if not isinstance(step, KeyedStep))
        self.decoders: list[ImageDecoder] = []
        self._calls: list[Call] = []
        self._places: list[int] = []  # of each step's first model among the plan's
        place = 0
        for step, wiring in zip(plan.pipeline.steps, plan.wiring.steps, strict=True):
            self._places.append(place)
            self._calls.append(self._call(step, wiring, place))
            place += len(model_steps(step))
        self._has_traffic = any(isinstance(call, TrafficCall) for call in self._calls)
        self._branches = {
            branch.name: [
                None if wiring is None else self._again(call, wiring)
                for call, wiring in zip(self._calls[branch.step + 1 :], branch.steps, strict=True)
            ]
            for branch in plan.branches
        }

    def _call(self, step: Step, wiring: StepWiring, place: int) -> Call:
        if isinstance(step, ImageStep):
            self.decoders.append(ImageDecoder(step, self.plan.files))
            return self.decoders[-1]
        if isinstance(step, ModelStep):
            return self._step_call(self._load(self.plan.models[place]), wiring, "predict")
        if isinstance(step, PythonStep):
            function = import_function(step.function, dict(self.plan.archives).get(step.function))
            return self._step_call(partial(call_function, foreign(function)), wiring, "predict")
        if isinstance(step, FormatStep):
            return self._step_call(partial(run_format, step), wiring, "format")
        return self._traffic(step, wiring, place)

    def _traffic(self, step: TrafficStep, wiring: StepWiring, place: int) -> TrafficCall:
        if isinstance(step, KeyedStep):
            models = self.plan.models[place : place + len(model_steps(step))]
            limits = self.plan.threads, self.plan.device
            return KeyedCall(step, wiring, models, place, self._step_call, self.measures, *limits)
        members = []
        only = self.plan.challengers
        for at, (name, own) in enumerate(zip(step.members, wiring.members, strict=True)):
            load = self._load_challenger if isinstance(step, ShadowStep) and at else self._load
            model = _not_called if only is not None and name not in only else load(self.plan.models[place + at])
            members.append(Member(name, place + at, self._step_call(model, own, "predict"), own))
        if isinstance(step, CascadeStep):
            condition = None if step.condition is None else compile_check(step.condition)
            return CascadeCall(step, wiring, members, condition, self.measures)
        if isinstance(step, SplitStep):
            return SplitCall(step, wiring, members)
        return (
            EnsembleCall(step, wiring, members)
            if isinstance(step, EnsembleStep)
            else ShadowCall(step, wiring, members, only)
        )

    def _load_challenger(self, spec: ModelSpec) -> Callable[[Arrays], Arrays]:
        """Load a model that may fail: then each call says so."""
        try:
            return self._load(spec)
        except LakemillError as error:
            reason = RowError(error.code, error.message)

        def refuse(inputs: Arrays) -> Arrays:
            raise reason

        return refuse

    def _load(self, spec: ModelSpec) -> Callable[[Arrays], Arrays]:
        loaded, _ = CACHE.get(spec, threads=self.plan.threads, device=self.plan.device, most=self._kept)
        self.measures.model_load_seconds += 0.0 if loaded.is_counted else loaded.load_seconds
        self.measures.models_loaded += not loaded.is_counted
        loaded.is_counted = True
        self.measures.model_bytes += loaded.model_bytes
        return spread(measured(loaded, self.measures), spec.inputs)

    def _step_call(self, call: Callable[[Arrays], Arrays], wiring: StepWiring, stage: str) -> StepCall:
        return StepCall(
            call,
            wiring,
            stage,
            self.plan.batch_rows,
            halves=self.bisect,
            foreign=stage != "format",
            stop_at_first=self.stop_at_failure,
        )

    def _again(self, call: Call, wiring: StepWiring) -> StepCall:
        """Return a step's call with other connections, for a challenger's results."""
        assert isinstance(call, StepCall)  # noqa: S101 -- wiring refuses others
        return self._step_call(call.call, wiring, call.stage)

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
        for at, (step, call) in enumerate(zip(self.plan.pipeline.steps, self._calls, strict=True)):
            if self.stop_at_failure and batch.failures:
                return batch
            started = time.perf_counter_ns()
            parts = self._run_step(at, call, columns, batch)
            elapsed = time.perf_counter_ns() - started
            batch.elapsed_ns += parts or [elapsed]
            if isinstance(step, FormatStep):
                self.measures.format_seconds += elapsed / 1e9
            elif not isinstance(step, ImageStep):
                self.measures.predict_seconds += elapsed / 1e9
        return batch

    def _run_step(self, at: int, call: Call, columns: Mapping[str, Any], batch: Batch) -> list[int]:
        """Run a step, on challengers' branches too; return the time of each of its models if it has several."""
        if isinstance(call, TrafficCall):
            return call.run(batch, columns)
        wiring = self.plan.wiring.steps[at]
        if self._has_traffic and isinstance(self.plan.pipeline.steps[at], ModelStep):
            batch.note(self._places[at])
        if isinstance(call, ImageDecoder):
            self._run_image(call, columns, batch)
        elif all(source in batch.values for _, source in wiring.inputs):  # else the champion's part, which is left out
            self._run_call(call, wiring, batch)
        for branch in self.plan.branches:
            if at > branch.step:
                self._follow(branch, at, batch)
        return []

    def _follow(self, branch: Branch, at: int, batch: Batch) -> None:
        """Run a step after a shadow step on a challenger's results, or take over what it made."""
        wiring, call = branch.steps[at - branch.step - 1], self._branches[branch.name][at - branch.step - 1]
        own = batch.branches[branch.name]
        if wiring is None or call is None:
            own.adopt(batch, [name for _, name in self.plan.wiring.steps[at].outputs if name in batch.values])
            return
        try:
            self._run_call(call, wiring, own)
        except LakemillError as error:
            reason = RowError(error.code, error.message)
            own.drop(dict.fromkeys(range(len(own.active)), (call.stage, reason)))
            for spec, name in wiring.outputs:
                own.set(replace(spec, name=name), join([], spec))

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
        assert isinstance(last, StepCall)  # noqa: S101 -- see the docstring
        call = last.call

        def observed(inputs: Arrays) -> Arrays:
            result = call(inputs)
            observer(result)
            return result

        last.call = observed


def _not_called(inputs: Arrays) -> Arrays:
    """Stand for a model of a shadow step whose results are there already."""
    raise AssertionError(f"a model that is left out was called with {len(inputs)} inputs")
