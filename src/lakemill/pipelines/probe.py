"""One real batch through a pipeline's steps, to see what each step gives: dtype and shape, never values."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved
from lakemill_udfs.errors import ModelError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.models.model import Arrays, ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep, PythonStep
from lakemill_udfs.steps.kinds import Step, model_steps
from lakemill_udfs.tensors.spec import Kind, TensorSpec

UNKNOWN = TensorSpec("output")


def probe(
    resolved: Resolved, columns: Mapping[str, Any], kinds: Mapping[str, Kind], rows: int
) -> dict[str, dict[str, Any]]:
    """Run each model and each Python step on one batch and return what it gave.

    Args:
        resolved: The pipeline; its models need not say their outputs.
        columns: Some rows of the source, each column as the runner takes it.
        kinds: What each column holds.
        rows: Rows of each.

    Returns:
        For each such step, its outputs as they are declared: ``{name: {dtype, shape}}``.

    Raises:
        ModelError: ``PROBE_EMPTY`` if a step gave nothing: there is no row, or it failed for all rows.
    """
    found: dict[str, dict[str, Any]] = {}
    steps, models, coming = list(resolved.pipeline.steps), list[ModelSpec](), iter(resolved.models)
    for at, step in enumerate(resolved.pipeline.steps):
        models += [next(coming) for _ in model_steps(step)]
        if not isinstance(step, ModelStep | PythonStep):
            continue
        name = step.uri if isinstance(step, ModelStep) else step.name
        runner = _runner(steps[: at + 1], models, resolved.pipeline.inputs, kinds)
        results: list[Arrays] = []
        runner.observe_last(results.append)
        with suppress(ModelError):  # the result is not what was declared, which is why it is looked at
            runner.run(columns, rows)
        if not results:
            raise ModelError("PROBE_EMPTY", f"step {at + 1}, {name}, gave nothing for {rows} rows.")
        specs = [_spec(output, array) for output, array in results[0].items()]
        found[f"step {at + 1}, {name}"] = {spec.name: spec.to_dict() for spec in specs}
        if isinstance(step, PythonStep):
            steps[at] = replace(step, outputs=found[f"step {at + 1}, {name}"])
        elif not models[-1].outputs:
            models[-1] = replace(models[-1], outputs=tuple(specs))
    return found


def _runner(
    steps: list[Step], models: list[ModelSpec], inputs: tuple[TensorSpec, ...], kinds: Mapping[str, Kind]
) -> PipelineRunner:
    """Return the runner of these steps; if the last one's outputs are not known, it runs until they are there."""
    is_open = isinstance(steps[-1], ModelStep) and not models[-1].outputs
    wired = [*models[:-1], replace(models[-1], outputs=(UNKNOWN,))] if is_open else models
    plan = make_plan(Resolved(Pipeline(tuple(steps), inputs=inputs), tuple(wired)), kinds)
    return PipelineRunner(replace(plan, models=tuple(models)))


def _spec(name: str, array: NDArray[Any]) -> TensorSpec:
    """Return what declares an output that looks like this; rows of different size have free dimensions."""
    array = np.asarray(array)
    cell = array[0] if array.dtype == object and array.ndim == 1 and isinstance(array[0], np.ndarray) else None
    if cell is not None:
        shapes = [row.shape for row in array]
        shape = tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))
        return TensorSpec(name, _dtype(cell), shape)
    return TensorSpec(name, _dtype(array), array.shape[1:])


def _dtype(array: NDArray[Any]) -> str:
    if array.dtype.kind in "OU":
        return "binary" if array.size and isinstance(array.flat[0], bytes) else "string"
    return array.dtype.name
