"""``lakemill plan``: what a run would do, and everything that keeps it from doing it. Nothing is scored or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lakemill.config.trust import NAMED, Trust
from lakemill.engines.schemas import ddl, fields_of, predictions_schema, tensors_of
from lakemill.pipelines.function_code import FunctionCode
from lakemill.pipelines.input_forms import input_forms
from lakemill.pipelines.plan_report import PlanReport
from lakemill.pipelines.planning import (
    AUTO_BATCH_BYTES,
    FEWEST_ROWS,
    MOST_ROWS,
    MOST_SCALAR_ROWS,
    SCALAR_BATCH_BYTES,
    is_scalar,
    look_at_check,
    look_at_function,
    make_plan,
)
from lakemill.pipelines.probe import probe as run_probe
from lakemill.pipelines.registry import Finder
from lakemill.pipelines.resolving import Resolved, resolve
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.masking import masked
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import PythonStep
from lakemill_udfs.steps.kinds import Step, model_steps
from lakemill_udfs.tensors.spec import Kind, TensorSpec, arrow_tensors
from lakemill_udfs.wiring import wire
from lakemill_udfs.worker import columns_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


PROBE_ROWS = 16


@dataclass(frozen=True)
class SourceColumns:
    """The columns of a source.

    Args:
        kinds: What each holds.
        types: Arrow type of each, or in words what Python holds.
    """

    kinds: Mapping[str, Kind]
    types: Mapping[str, pa.DataType | str]

    @classmethod
    def of(cls, schema: pa.Schema) -> SourceColumns:
        """Return those of an Arrow schema."""
        return cls(tensors_of(schema), {name: field.type for name, field in fields_of(schema).items()})


def plan_source(pipeline: Pipeline, source: Any, *, registry: str | None = None, probe: bool = False) -> PlanReport:
    """Return the plan of a pipeline over data; see ``lakemill.Pipeline.plan``."""
    from lakemill.in_process.inputs import given

    report = PlanReport()
    resolved, models = resolve_all(pipeline, registry, report)
    if hasattr(source, "sparkSession"):
        _describe_frame(report, resolved, models, source, probe=probe)
        return report
    data = given(source)
    types = {name: getattr(column, "type", _python_form(column)) for name, column in data.columns.items()}
    describe(report, resolved, models, SourceColumns(data.kinds, types), readable="all")
    if probe and None not in models:
        with report.noting():
            count = min(data.rows, int(report.batch.get("rows", PROBE_ROWS)))
            columns = {name: column[:count] for name, column in data.columns.items()}
            report.probe = run_probe(resolved, columns, data.kinds, count)
    return report


def _describe_frame(
    report: PlanReport, resolved: Resolved, models: list[ModelSpec | None], frame: DataFrame, *, probe: bool
) -> None:
    from lakemill.engines.spark.scan import scan_settings
    from lakemill.engines.spark.schemas import arrow_schema
    from lakemill.engines.spark.session import task_threads
    from lakemill.pipelines.frames import carried_columns

    schema, spark = arrow_schema(frame.schema), frame.sparkSession
    carried = carried_columns(schema)
    columns = SourceColumns.of(schema)
    plan = describe(report, resolved, models, columns, threads=task_threads(spark), passthrough=carried)
    if plan is not None:
        report.output_schema = ddl(predictions_schema(plan, schema))
        found = scan_settings(spark, schema, plan).items()
        report.settings = [{"name": name, "value": value, "reason": reason} for name, (value, reason) in found]
    if probe and None not in models:
        add_probe(report, resolved, lambda count: frame.limit(count).toArrow())


def _python_form(column: Any) -> str:
    return f"numpy array of {column.dtype}" if isinstance(column, np.ndarray) else "Python values"


def resolve_all(
    pipeline: Pipeline, registry: str | None, report: PlanReport, trust: Trust = NAMED
) -> tuple[Resolved, list[ModelSpec | None]]:
    """Find what can be found of a pipeline, and note everything that cannot.

    Returns:
        The pipeline as far as it could be resolved, and each model step's model, None for one that was not found.
    """
    steps: list[Step] = []
    models: list[ModelSpec | None] = []
    finder = Finder(registry)
    code = FunctionCode(finder, trust)
    for step in pipeline.steps:
        found: Resolved | None = None
        with report.noting():
            found = resolve(Pipeline((step,)), finder, trust)
        models += found.models if found is not None else [None] * len(model_steps(step))
        steps.append(found.pipeline.steps[0] if found is not None else step)
        code.folders |= dict(found.code) if found is not None else {}
    checks = pipeline.checks
    with report.noting():
        checks = code.of_checks(pipeline.checks)
    resolved = Resolved(
        Pipeline(tuple(steps), checks, pipeline.outputs, pipeline.inputs),
        tuple(model for model in models if model is not None),
        code=tuple(code.folders.items()),
    )
    return resolved, models


def describe(
    report: PlanReport, resolved: Resolved, models: list[ModelSpec | None], source: SourceColumns, **options: Any
) -> PredictPlan | None:
    """Fill in what follows from a pipeline and its source's columns, and note what does not fit.

    Args:
        report: To fill in.
        resolved: The pipeline.
        models: One for each model step; None for one that was not found.
        source: What it has.
        options: As ``make_plan`` takes them.

    Returns:
        The plan; None if there is a problem.
    """
    report.models = [
        {
            "uri": masked(model.uri),
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "runtime": model.flavor,
            "certificate": model.certificate,
            "env": model.env,
        }
        for model in models
        if model is not None
    ]
    for check in resolved.pipeline.checks:
        with report.noting():
            look_at_check(check)
    for step in resolved.pipeline.steps:
        if isinstance(step, PythonStep):
            with report.noting():
                look_at_function(step, step.inputs)
    problems: list[LakemillError] = []
    wiring = wire(resolved.pipeline, models, source.kinds, problems)
    for problem in problems:
        report.add(problem)
    report.inputs = input_forms(resolved.pipeline, wiring, source.types)
    if report.problems:
        return None
    report.pipeline = {"name": resolved.name, "version": resolved.pipeline.version}
    with report.noting():
        plan = make_plan(resolved, source.kinds, **options)
        report.batch = batch_facts(plan, is_automatic=options.get("batch_rows", "auto") == "auto")
        return plan
    return None


def batch_facts(plan: PredictPlan, *, is_automatic: bool) -> dict[str, Any]:
    """Return the size of a model batch and why it is so; bytes are None where a tensor's size is free."""
    tensors = [spec for step in plan.wiring.steps for spec, _ in step.outputs]
    tensors += [column.spec for column in plan.wiring.columns]
    sizes = [spec.row_bytes for spec in tensors]
    known = [size for size in sizes if size is not None]
    row_bytes = sum(known) if len(known) == len(sizes) else None
    largest = max((spec for spec in tensors if spec.row_bytes), key=lambda spec: spec.row_bytes or 0, default=None)
    reason = _automatic(plan.batch_rows, largest, is_scalar(tensors)) if is_automatic else "engine.batch_rows says so"
    return {
        "rows": plan.batch_rows,
        "row_bytes": row_bytes,
        "bytes": None if row_bytes is None else row_bytes * plan.batch_rows,
        "source_bytes_at_most": plan.batch_bytes,
        "reason": reason,
    }


def _automatic(rows: int, largest: TensorSpec | None, are_scalars: bool) -> str:
    if largest is None:
        return "automatic: no tensor has a known size"
    if rows in (FEWEST_ROWS, MOST_ROWS, MOST_SCALAR_ROWS):
        return (
            f"automatic: the {'fewest' if rows == FEWEST_ROWS else 'most'} there are; the largest tensor is {largest}"
        )
    if are_scalars or rows > MOST_ROWS:
        return f"automatic: the numbers that are read fill {SCALAR_BATCH_BYTES / 2**20:.0f} MiB for each thread"
    return f"automatic: a batch of {largest} fills {AUTO_BATCH_BYTES / 2**20:.0f} MiB"


def add_probe(report: PlanReport, resolved: Resolved, first: Callable[[int], pa.Table]) -> None:
    """Run one batch and note what each step gives.

    Args:
        report: Gets it, or the reason why there is none.
        resolved: The pipeline.
        first: Returns so many rows of the source.
    """
    with report.noting():
        table = first(int(report.batch.get("rows", PROBE_ROWS)))
        report.probe = run_probe(resolved, columns_of(table), arrow_tensors(table.schema), table.num_rows)
