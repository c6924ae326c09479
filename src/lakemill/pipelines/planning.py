"""From a resolved pipeline and a source's columns to the plan that workers get."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from lakemill.pipelines.resolving import Resolved
from lakemill_udfs.errors import ConfigError, TableError
from lakemill_udfs.models.flavors import ROW_BY_ROW
from lakemill_udfs.models.threads import processors
from lakemill_udfs.plan import RESERVED, PredictPlan, Provenance
from lakemill_udfs.steps.callables import form_of
from lakemill_udfs.steps.check_fit import input_types, require_fit
from lakemill_udfs.steps.checks import compile_check
from lakemill_udfs.steps.declared import Check, PythonStep
from lakemill_udfs.steps.functions import import_function
from lakemill_udfs.tensors.spec import Kind, TensorSpec
from lakemill_udfs.wiring import Wiring, wire

AUTO_BATCH_BYTES = 4 * 2**20
"""Tensors of an automatic model batch: they stay near the processor, and a convolution gains nothing from more rows
(SqueezeNet on one thread: 10.0 ms an image with 1 to 8 rows, 10.7 to 10.9 ms with 16 to 64)."""

FEWEST_ROWS, MOST_ROWS = 8, 4096
MOST_SCALAR_ROWS = 65_536
"""Where all tensors are single numbers: what a call costs beside the model is shared by more rows (the loop without a
model does 2.0 million rows/s of 20 columns with 4,096 rows a call, 7.8 with 65,536)."""

SCALAR_BATCH_BYTES = 2 * 2**20
"""Numbers of a batch together, single ones as eight bytes each: a model of trees reads them once a tree, from the
processor's cache if they fit (scikit-learn, 20 columns, 100 trees, one thread: 281,000 rows/s with 4,096 rows a call,
300,000 with 8,192 to 16,384, 255,000 with 65,536)."""


def make_plan(
    resolved: Resolved,
    table: Mapping[str, Kind],
    *,
    passthrough: Sequence[str] = (),
    batch_rows: int | Literal["auto"] = "auto",
    batch_bytes: int = 64 * 2**20,
    device: str = "auto",
    threads: int = 0,
    parts: tuple[str, ...] = ("time", "out", "anomaly"),
    provenance: Provenance | None = None,
    task_metrics: bool = False,
    readable: Literal["carried", "all", "any"] = "carried",
) -> PredictPlan:
    """Return the plan.

    Args:
        resolved: The pipeline with its models found.
        table: The source's columns, and what each holds.
        passthrough: Key and carried columns.
        batch_rows: Rows of a model batch, or ``auto``.
        batch_bytes: Most bytes of source columns in a model batch.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: Threads of a model inside one task; 0 leaves the runtime's default.
        parts: Which of ``time``, ``in``, ``out``, ``anomaly`` are written.
        provenance: Of the run.
        task_metrics: Whether tasks are measured.
        readable: Which columns checks may read as ``in.<column>``: ``carried`` ones and inputs, as workers have them,
            ``all`` of the table, or ``any``, where the table is not known yet.

    Raises:
        ModelError: an input that nothing feeds, unknown outputs (see ``wire``).
        TableError: ``COLUMN_MISSING`` or ``COLUMN_TYPE``.
        ConfigError: ``COLUMN_RESERVED``, ``FUNCTION_NOT_FOUND``, or a check that does not parse or fit
            (see ``require_fit``).
    """
    for name in passthrough:
        if name not in table:
            raise TableError("COLUMN_MISSING", f"the source has no column '{name}'; it has: {', '.join(table)}.")
        if name in RESERVED:
            raise ConfigError(
                "COLUMN_RESERVED", f"column '{name}' cannot be carried: a predictions table has a column of that name."
            )
    wiring = wire(resolved.pipeline, resolved.models, table)
    for name in (f"out_{branch.name}" for branch in wiring.branches):
        if name in passthrough:
            raise ConfigError(
                "COLUMN_RESERVED", f"column '{name}' cannot be carried: it is the column of a challenger's results."
            )
    _compile_checks(resolved, wiring, table, passthrough, readable)
    for step, wired in zip(resolved.pipeline.steps, wiring.steps, strict=True):
        if isinstance(step, PythonStep):
            look_at_function(step, [name for name, _ in wired.inputs])
    rows = automatic_batch_rows(resolved, wiring, threads) if batch_rows == "auto" else batch_rows
    origin = provenance or Provenance(pipeline=resolved.name)
    return PredictPlan(
        resolved.pipeline,
        resolved.models,
        wiring,
        tuple(dict.fromkeys(passthrough)),
        rows,
        batch_bytes,
        threads,
        device,
        parts,
        origin,
        task_metrics,
        resolved.code,
    )


def look_at_check(check: Check) -> None:
    """Compile a check; one from a logged pipeline's code is not run here: a plan imports nothing that is foreign.

    Raises:
        ConfigError: as ``compile_check``.
    """
    if check.code is None:
        compile_check(check)


def look_at_function(step: PythonStep, inputs: Collection[str]) -> None:
    """Look whether a step's function is there and takes its inputs, if it is the user's own.

    Raises:
        ConfigError: ``FUNCTION_NOT_FOUND``, or ``PYTHON_STEP`` if its signature does not fit.
    """
    if step.code is None:
        form_of(import_function(step.function), inputs)


def _compile_checks(
    resolved: Resolved,
    wiring: Wiring,
    table: Mapping[str, Kind],
    passthrough: Sequence[str],
    readable: Literal["carried", "all", "any"],
) -> None:
    inputs = None
    if readable != "any":
        carried = (*passthrough, *(name for column in wiring.columns for name in (column.spec.name, *column.dims)))
        inputs = input_types(table, table if readable == "all" else dict.fromkeys(carried))
    outputs = {spec.name: spec.arrow_type() for spec in wiring.outputs}
    for check in resolved.pipeline.checks:
        if check.code is None:  # a logged pipeline's code is not run here: a plan imports nothing that is foreign
            require_fit(check, compile_check(check), inputs, outputs)


def automatic_batch_rows(resolved: Resolved, wiring: Wiring, threads: int = 1) -> int:
    """Return how many rows fill ``AUTO_BATCH_BYTES`` with the pipeline's largest tensors, up to a most.

    Where all are single numbers, how many fill ``SCALAR_BATCH_BYTES`` with those that are read; so too where they are
    lists of numbers for models that read a row at a time. The threads of such a model deal a batch's rows out, and each
    gets as many; 0 threads are all processors.
    """
    reads_rows = bool(resolved.models) and all(model.flavor in ROW_BY_ROW for model in resolved.models)
    numbers = SCALAR_BATCH_BYTES * ((threads or processors()) if reads_rows else 1)
    made = [spec for step in wiring.steps for spec, _ in step.outputs] + [column.spec for column in wiring.columns]
    largest = max((spec.row_bytes or 0 for spec in made), default=0)
    if not largest:
        return MOST_ROWS
    if is_scalar(made):
        return min(MOST_SCALAR_ROWS, max(MOST_ROWS, numbers // (8 * max(1, len(wiring.columns)))))
    rows = min(MOST_ROWS, max(FEWEST_ROWS, AUTO_BATCH_BYTES // largest))
    return max(rows, min(MOST_SCALAR_ROWS, numbers // largest)) if reads_rows and is_flat(made) else rows


def is_scalar(tensors: Sequence[TensorSpec]) -> bool:
    """Return whether all tensors are single numbers."""
    return all(spec.row_bytes is not None and not spec.shape for spec in tensors)


def is_flat(tensors: Sequence[TensorSpec]) -> bool:
    """Return whether all tensors are single numbers or lists of them."""
    return all(spec.row_bytes is not None and len(spec.shape) < 2 for spec in tensors)
