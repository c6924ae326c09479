"""In-process inference: the runner that Spark's workers use, on data as it is given, and bad input raises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from lakemill.in_process import custom_json
from lakemill.in_process.branches import branch_outputs, last_models, models_of_rows
from lakemill.in_process.dataset import Field, choose
from lakemill.in_process.inputs import Given, given, one_array, part, to_arrow
from lakemill.in_process.results import Output, Result
from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.files import RowFiles
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.check_fit import inputs_read
from lakemill_udfs.steps.checks import compile_check, judge
from lakemill_udfs.steps.declared import ImageStep
from lakemill_udfs.steps.kinds import shadow_places
from lakemill_udfs.steps.traffic import ShadowStep, SplitStep
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.ragged import join
from lakemill_udfs.tensors.spec import Kind

KEPT_PLANS = 16
"""Plans kept for one pipeline: one for each kind of data that it is given."""


class Inference:
    """A pipeline whose models are found once; its plans and loaded models are kept for the calls that follow.

    Args:
        plan_for: Makes the pipeline's plan for columns, from what each of them holds.
    """

    def __init__(self, plan_for: Callable[[Mapping[str, Kind]], PredictPlan]) -> None:
        self.plan_for = plan_for
        self._scorer = lru_cache(KEPT_PLANS)(self._make_scorer)

    def run(
        self,
        data: Any,
        dataset: Sequence[str] | str = ("*",),
        exclude: Sequence[str] | str = (),
        separator: str = ".",
        allowed_roots: Sequence[str] = (),
        *,
        data_format: str | None = None,
    ) -> Any:
        """Score ``data`` and return the same kind of thing.

        Args:
            data: As ``infer_input.given`` takes it.
            dataset: What comes back, as ``infer_dataset.choose``.
            exclude: What is left out of that.
            separator: Between a part and a name.
            allowed_roots: Folders, files or URIs below which rows may name files by their path.
            data_format: As ``custom_json.check_format``.

        Raises:
            RowError: a row is bad; names the row, the stage and the reason.
            ConfigError: ``INFER_INPUT``, ``INFER_FORMAT``, ``INPUT_ROWS`` or ``DATASET_UNKNOWN``.
            ModelError: nothing feeds an input.
            TableError: a column is of the wrong type.
        """
        custom_json.check_format(data_format)
        if data_format is not None:
            rows, wanted = custom_json.columns(data), custom_json.asked(dataset)
            return custom_json.records(self.run(rows, wanted, exclude, separator, allowed_roots), dataset, separator)
        source = given(data)
        scorer = self._scorer(tuple(source.kinds.items()), tuple(allowed_roots))
        fields = scorer.fields(_key(dataset), _key(exclude), separator)
        now = dt.datetime.now(dt.UTC)
        scored = scorer.score(source)
        anomaly = scorer.judge(source, scored.outputs)
        outputs = {**scored.outputs, **scored.branch_outputs}
        facts = scorer.facts | {"time": now, "elapsed": scored.elapsed_ns}
        return Result(source, outputs, anomaly, facts, scored.facts).formatted(fields)

    def _make_scorer(self, kinds: tuple[tuple[str, Any], ...], roots: tuple[str, ...]) -> Scorer:
        plan = replace(self.plan_for(dict(kinds)), files=RowFiles(roots))
        return Scorer(plan, tuple(name for name, _ in kinds))


def _key(selectors: Sequence[str] | str) -> str | tuple[str, ...]:
    if not isinstance(selectors, Sequence):
        raise ConfigError("DATASET_UNKNOWN", f"a dataset is a text, or several; got {type(selectors).__name__}.")
    return selectors if isinstance(selectors, str) else tuple(selectors)


@dataclass(frozen=True, eq=False)
class Scored:
    """The results of a call.

    Args:
        outputs: By name.
        elapsed_ns: Of reading the input and of each step, or each model of a step that has several.
        branch_outputs: The challengers', as ``out_<challenger>.<name>``.
        facts: Metadata that differs from row to row.
    """

    outputs: dict[str, Output]
    elapsed_ns: list[int]
    branch_outputs: dict[str, Output]
    facts: dict[str, Sequence[Any]]


class Scorer:
    """One plan with its models loaded and its checks compiled.

    Args:
        plan: For data with ``names``.
        names: The data's columns.
    """

    def __init__(self, plan: PredictPlan, names: Sequence[str]) -> None:
        self.plan = plan
        self.runner = PipelineRunner(plan, stop_at_failure=True)
        self.fields = lru_cache(self._fields)
        self._checks = {
            check.name: compile_check(check, dict(plan.archives).get(check.function)) for check in plan.pipeline.checks
        }
        self._decodes = any(isinstance(step, ImageStep) for step in plan.pipeline.steps)
        encoded = {step.column for step in plan.pipeline.steps if isinstance(step, ImageStep)}
        self._keys = {
            "in": [name for name in names if name not in encoded],
            "out": [spec.name for spec in plan.wiring.outputs],
            "anomaly": ["count", *self._checks],
            **{f"out_{one.name}": [*(spec.name for spec in one.outputs), "error"] for one in plan.wiring.branches},
        }
        self._is_testing = any(isinstance(step, SplitStep | ShadowStep) for step in plan.pipeline.steps)
        self._read = inputs_read(self._checks.values(), self._keys["in"])
        last = plan.models[-1] if plan.models else None
        self._models = [{"name": one.name, "version": one.version, "sha256": one.sha256} for one in plan.models]
        self.facts: dict[str, Any] = {
            "pipeline_version": plan.pipeline.version,
            "last_model": last and {"model_name": last.name, "model_sha": last.sha256},
            "models": self._models,
        }

    def _fields(self, dataset: Sequence[str], exclude: Sequence[str], separator: str) -> tuple[Field, ...]:
        return choose(self._keys, dataset, exclude, separator, is_testing=self._is_testing)

    def score(self, source: Given) -> Scored:
        """Run all rows.

        Raises:
            RowError: a row failed.
        """
        step = self.plan.pass_rows if self._decodes else max(1, source.rows)  # decoded images are large
        batches = []
        for start in range(0, max(1, source.rows), step):
            stop = min(start + step, source.rows)
            columns = source.columns
            if stop - start < source.rows:
                columns = {name: part(column, start, stop) for name, column in columns.items()}
            batches.append(self.runner.run(columns, stop - start))
            _raise_first(batches[-1], start)
        results = {
            spec.name: (spec, join([batch.values[spec.name] for batch in batches], spec))
            for spec in self.plan.wiring.outputs
        }
        times = zip(*([batch.read_ns, *batch.elapsed_ns] for batch in batches), strict=True)
        elapsed = [sum(nanoseconds) for nanoseconds in times]
        return Scored(results, elapsed, branch_outputs(self.plan.wiring.branches, batches), self._row_facts(batches))

    def _row_facts(self, batches: Sequence[Batch]) -> dict[str, Sequence[Any]]:
        """Return what differs from row to row where a step has several models; else nothing does."""
        if not batches[0].scored_by:
            return {}
        return {
            "models": models_of_rows(batches, self._models),
            "last_model": last_models(batches, self._models, shadow_places(self.plan.pipeline.steps)),
        }

    def judge(self, source: Given, outputs: Mapping[str, Output]) -> dict[str, Any]:
        """Return the count of failed checks and each check, as ``infer_result.Result`` takes them."""
        if not self._checks:
            return {"count": 0}
        inputs = {name: one_array(to_arrow(source.columns[name])) for name in self._read}
        results = [write_tensor(values, spec) for spec, values in outputs.values()]
        judged, failed = judge(
            self._checks,
            _struct(inputs, source.rows),
            _struct(dict(zip(outputs, results, strict=True)), source.rows),
        )
        for row, kind in failed.items():
            raise RowError("CHECK_FAILED", f"row {row}, check: a check raised {kind}.")
        return dict(zip(self._keys["anomaly"], judged.cast(self.plan.anomaly_type).flatten(), strict=True))


def _struct(columns: Mapping[str, pa.Array], rows: int) -> pa.StructArray:
    if not columns:
        return pa.array([{}] * rows, pa.struct([]))
    return pa.StructArray.from_arrays([*columns.values()], names=[*columns])


def _raise_first(batch: Batch, start: int) -> None:
    if batch.failures:
        row = min(batch.failures)
        stage, error = batch.failures[row]
        raise RowError(error.code, f"row {start + row}, {stage}: {error.message}", hint=error.hint)
