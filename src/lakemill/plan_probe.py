"""One real batch through a pipeline's steps, to see what each step gives: dtype and shape, never values."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill.planning import make_plan
from lakemill.resolving import Resolved
from lakemill_udfs.errors import ModelError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.models import Arrays, ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps import ModelStep, PythonStep, Step
from lakemill_udfs.tensors import TensorSpec, arrow_tensors
from lakemill_udfs.worker import columns_of

UNKNOWN = TensorSpec("output")


def probe(resolved: Resolved, table: pa.Table) -> dict[str, dict[str, Any]]:
    """Run each model and each Python step on one batch and return what it gave.

    Args:
        resolved: The pipeline; its models need not say their outputs.
        table: Some rows of the source.

    Returns:
        For each such step, its outputs as they are declared: ``{name: {dtype, shape}}``.

    Raises:
        ModelError: ``PROBE_EMPTY`` if a step gave nothing: there is no row, or it failed for all rows.
    """
    found: dict[str, dict[str, Any]] = {}
    steps, models, coming = list(resolved.pipeline.steps), list[ModelSpec](), iter(resolved.models)
    for at, step in enumerate(resolved.pipeline.steps):
        if isinstance(step, ModelStep):
            models.append(next(coming))
        elif not isinstance(step, PythonStep):
            continue
        name = step.uri if isinstance(step, ModelStep) else step.name
        given = _last_step(steps[: at + 1], models, resolved.pipeline.inputs, table)
        if given is None:
            raise ModelError("PROBE_EMPTY", f"step {at + 1}, {name}, gave nothing for {table.num_rows} rows.")
        specs = [_spec(output, array) for output, array in given.items()]
        found[f"step {at + 1}, {name}"] = {spec.name: spec.to_dict() for spec in specs}
        if isinstance(step, PythonStep):
            steps[at] = replace(step, outputs=found[f"step {at + 1}, {name}"])
        elif not models[-1].outputs:
            models[-1] = replace(models[-1], outputs=tuple(specs))
    return found


def _last_step(
    steps: list[Step], models: list[ModelSpec], inputs: tuple[TensorSpec, ...], table: pa.Table
) -> Arrays | None:
    """Return what the last step gives before it is compared with what is declared; None if it was not reached."""
    is_open = isinstance(steps[-1], ModelStep) and not models[-1].outputs
    wired = [*models[:-1], replace(models[-1], outputs=(UNKNOWN,))] if is_open else models
    plan = make_plan(Resolved(Pipeline(tuple(steps), inputs=inputs), tuple(wired)), arrow_tensors(table.schema))
    results: list[Arrays] = []
    runner = PipelineRunner(replace(plan, models=tuple(models)))
    runner.observe_last(results.append)
    with suppress(ModelError):  # the result is not what was declared, which is why it is looked at
        runner.run(columns_of(table), table.num_rows)
    return results[0] if results else None


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
