"""Which column or earlier output feeds each input of each step, worked out once before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lakemill_udfs.errors import LakemillError, ModelError, TableError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.one_array import NAME as ONE_ARRAY
from lakemill_udfs.models.one_array import one_array
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep, Step
from lakemill_udfs.steps.formats import format_specs
from lakemill_udfs.tensors.column_inputs import InputColumn, input_column
from lakemill_udfs.tensors.spec import Kind, TensorSpec, declared


@dataclass(frozen=True)
class StepWiring:
    """One step's connections.

    Args:
        inputs: The step's own input names, and the value (column or earlier output) that feeds each.
        casts: dtype that a value is cast to first, by the step's own input name.
        outputs: The step's own outputs as specs, and the name that each gets.
    """

    inputs: tuple[tuple[str, str], ...] = ()
    casts: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[tuple[TensorSpec, str], ...] = ()


@dataclass(frozen=True)
class Wiring:
    """A whole pipeline's connections.

    Args:
        steps: One for each step.
        columns: Source columns that feed tensors.
        raw_columns: Source columns that image steps read as they are.
        outputs: The fields of ``out``: those the pipeline names, or what no later step reads.
    """

    steps: tuple[StepWiring, ...]
    columns: tuple[InputColumn, ...]
    raw_columns: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass
class _Builder:
    table: Mapping[str, Kind]
    declared: Mapping[str, TensorSpec]
    made: dict[str, TensorSpec] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    columns: dict[str, InputColumn] = field(default_factory=dict)
    raw: dict[str, None] = field(default_factory=dict)
    problems: list[LakemillError] | None = None
    is_incomplete: bool = False

    def report(self, error: LakemillError) -> None:
        """Raise a problem, or keep it and go on; then a value that nothing makes may be one of a step that failed."""
        if self.problems is None:
            raise error
        self.problems.append(error)
        self.is_incomplete = True

    @property
    def leaves(self) -> list[str]:
        return [name for name in self.made if name not in self.read]

    def feed(self, name: str, wanted: TensorSpec | None, who: str, also_read: Collection[str] = ()) -> str | None:
        """Mark ``name`` as read and return the dtype that it must be cast to, None if it fits."""
        if self.is_incomplete and name not in self.made and name not in self.table:
            return None
        try:
            return self._feed(name, wanted, who, also_read)
        except LakemillError as error:
            self.report(error)
            return None

    def _feed(self, name: str, wanted: TensorSpec | None, who: str, also_read: Collection[str]) -> str | None:
        if name in self.made:
            self.read.add(name)
            return _cast(self.made[name], wanted, who)
        if name not in self.table:
            raise ModelError(
                "MODEL_INPUT_MISSING",
                f"{who} needs input '{name}'; the table has: {', '.join(self.table)}"
                + (f"; earlier steps make: {', '.join(self.made)}." if self.made else "."),
                hint="name what feeds it: inputs: {" + name + ": <column or output>}",
            )
        if name in self.columns:  # an earlier step has said how it is read
            return _cast(self.columns[name].spec, wanted, who)
        self.columns[name] = input_column(
            name, wanted, self.table, self.declared.get(name), who=who, also_read=also_read
        )
        return None

    def make(self, spec: TensorSpec, name: str, who: str) -> tuple[TensorSpec, str]:
        if name in self.made and name not in self.read:
            raise ModelError(
                "OUTPUT_NAME",
                f"{who} makes '{name}', which an earlier step made and nothing has read.",
                hint="rename one: outputs: {" + spec.name + ": <new name>}",
            )
        self.made.pop(name, None)
        self.read.discard(name)
        self.made[name] = replace(spec, name=name)
        return spec, name


def wire(
    pipeline: Pipeline,
    models: Sequence[ModelSpec | None],
    table: Mapping[str, Kind],
    problems: list[LakemillError] | None = None,
) -> Wiring:
    """Connect a pipeline's steps with each other and with a table.

    Args:
        pipeline: Its models are resolved.
        models: One for each ``ModelStep``, in order; None for one that was not found.
        table: The source's columns, and what each holds.
        problems: Gets every error, so that all are known at once; without it the first one is raised.

    Raises:
        ModelError: ``MODEL_INPUT_MISSING``, ``MODEL_INPUT_MISMATCH``, ``MODEL_OUTPUT_UNKNOWN``, ``OUTPUT_NAME``,
            ``OUTPUT_UNKNOWN`` or ``FORMAT_INPUT``.
        TableError: ``COLUMN_MISSING``, ``COLUMN_TYPE`` or ``COLUMN_SHAPE``.
    """
    builder = _Builder(table, {spec.name: spec for spec in pipeline.inputs}, problems=problems)
    specs = iter(models)
    steps = []
    for step in pipeline.steps:
        try:
            steps.append(_wire_step(builder, step, specs))
        except LakemillError as error:
            builder.report(error)
            steps.append(StepWiring())
    unknown = [] if builder.is_incomplete else [name for name in pipeline.outputs if name not in builder.made]
    if unknown:
        missing = ModelError(
            "OUTPUT_UNKNOWN",
            f"no step makes '{unknown[0]}'; there are: {', '.join(builder.made)}.",
            hint="a column of the source is carried by source.columns.",
        )
        builder.report(missing)
    outputs = tuple(builder.made[name] for name in pipeline.outputs or builder.leaves if name in builder.made)
    return Wiring(tuple(steps), tuple(builder.columns.values()), tuple(builder.raw), outputs)


def _wire_step(builder: _Builder, step: Step, models: Iterator[ModelSpec | None]) -> StepWiring:
    if isinstance(step, ImageStep):
        return _wire_image(builder, step)
    if isinstance(step, PythonStep):
        return _wire_function(builder, step)
    if isinstance(step, FormatStep):
        return _wire_format(builder, step)
    model = next(models)
    if model is None:  # it was not found, which is reported already
        builder.is_incomplete = True
        return StepWiring()
    return _wire_model(builder, step, model)


def _wire_image(builder: _Builder, step: ImageStep) -> StepWiring:
    if step.column not in builder.table:
        raise TableError(
            "COLUMN_MISSING",
            f"the image step reads column '{step.column}'; the table has: {', '.join(builder.table)}.",
            hint="image: {column: <the column with the encoded bytes>}",
        )
    if builder.table[step.column] not in ("binary", "large_binary", "null"):
        raise TableError(
            "COLUMN_TYPE",
            f"the image step needs '{step.column}' as binary (an encoded image); the column holds "
            f"{builder.table[step.column]}.",
            hint="image: {column: <the column with the encoded bytes>}",
        )
    builder.raw[step.column] = None
    if step.path_column in builder.table:
        builder.raw[step.path_column] = None
    return StepWiring(outputs=(builder.make(step.spec, step.output, "the image step"),))


def _wire_model(builder: _Builder, step: ModelStep, model: ModelSpec) -> StepWiring:
    who = f"model '{model.name}'"
    inputs, casts = [], {}
    wanted: Mapping[str, TensorSpec | None] = (
        {spec.name: spec for spec in model.inputs} or dict.fromkeys(step.inputs) or dict.fromkeys(builder.leaves)
    )
    wanted = _as_one_array(builder, step, model) or wanted
    unknown = sorted(set(step.inputs) - set(wanted))
    if unknown:
        raise ModelError("MODEL_INPUT_UNKNOWN", f"{who} has no input '{unknown[0]}'; it has: {', '.join(wanted)}.")
    if not wanted:
        raise ModelError(
            "MODEL_INPUT_MISSING",
            f"{who} does not say its inputs, and nothing is named for it.",
            hint="inputs: {<name in the model>: <column>}, or log the model with a signature.",
        )
    for name, spec in wanted.items():
        source = step.inputs.get(name, name)
        is_named = name in step.inputs or name in builder.made or name in builder.table
        if not is_named and len(wanted) == 1 and len(builder.leaves) == 1:
            source = builder.leaves[0]  # the only value there is feeds the only input there is, whatever it is called
        elif not is_named and len(wanted) == 1 and ONE_ARRAY in builder.table:
            source = ONE_ARRAY
        if spec is not None and spec.nullable and source not in builder.made and source not in builder.table:
            continue  # an optional input that nothing feeds
        cast = builder.feed(source, spec, who)
        inputs.append((name, source))
        if cast:
            casts[name] = cast
    outputs = _declared(step, model, who)
    return StepWiring(tuple(inputs), casts, tuple(builder.make(spec, name, who) for spec, name in outputs))


def _as_one_array(builder: _Builder, step: ModelStep, model: ModelSpec) -> Mapping[str, TensorSpec | None]:
    """Return the one array ``inputs`` that may feed a model of several numbers, if that is what there is."""
    spec = one_array(model.inputs)
    there = {*step.inputs, *builder.made, *builder.table}
    if spec is None or spec.name not in there or there & {one.name for one in model.inputs}:
        return {}
    return {spec.name: spec}


def _declared(step: ModelStep, model: ModelSpec, who: str) -> list[tuple[TensorSpec, str]]:
    if not model.outputs:
        raise ModelError(
            "MODEL_OUTPUT_UNKNOWN",
            f"{who} does not say its outputs.",
            hint="declare them: outputs: {score: {dtype: float32, shape: [10]}}, or log the model with a signature.",
        )
    unknown = sorted(set(step.outputs) - {spec.name for spec in model.outputs})
    if unknown:
        raise ModelError(
            "MODEL_OUTPUT_UNKNOWN",
            f"{who} has no output '{unknown[0]}'; it has: {', '.join(spec.name for spec in model.outputs)}.",
        )
    renamed = {name: value for name, value in step.outputs.items() if isinstance(value, str)}
    return [(spec, renamed.get(spec.name, spec.name)) for spec in model.outputs]


def _wire_function(builder: _Builder, step: PythonStep) -> StepWiring:
    who = f"function '{step.name}'"
    inputs = dict(step.inputs) or {name: name for name in builder.leaves}
    if not inputs:
        raise ModelError(
            "MODEL_INPUT_MISSING",
            f"{who} has no inputs; the table has: {', '.join(builder.table)}.",
            hint="inputs: {<name in the function>: <column>}",
        )
    for source in inputs.values():
        builder.feed(source, None, who, inputs.values())
    outputs = [builder.make(declared(name, raw), name, who) for name, raw in step.outputs.items()]
    return StepWiring(tuple(inputs.items()), {}, tuple(outputs))


def _wire_format(builder: _Builder, step: FormatStep) -> StepWiring:
    specs = {}
    for name, source in step.sources.items():
        builder.feed(source, None, "the format step")
        column = builder.columns.get(source)
        spec = builder.made.get(source) or (column.spec if column is not None else None)
        if spec is None:  # of a step that failed, which is reported already
            return StepWiring()
        specs[name] = spec
    outputs = [
        builder.make(spec, new, "the format step")
        for spec in format_specs(step, specs)
        if (new := step.outputs.get(spec.name, spec.name)) is not None
    ]
    return StepWiring(tuple(step.sources.items()), {}, tuple(outputs))


def _cast(made: TensorSpec, wanted: TensorSpec | None, who: str) -> str | None:
    if wanted is None:
        return None
    fits = len(made.shape) == len(wanted.shape) and all(
        a is None or b is None or a == b for a, b in zip(made.shape, wanted.shape, strict=True)
    )
    if not fits:
        raise ModelError("MODEL_INPUT_MISMATCH", f"{who} needs {wanted}; '{made.name}' is {made}.")
    if made.dtype == wanted.dtype:
        return None
    if "string" in (made.dtype, wanted.dtype) or not np.can_cast(made.numpy_dtype, wanted.numpy_dtype, "same_kind"):
        raise ModelError(
            "MODEL_INPUT_MISMATCH", f"{who} needs {wanted}; '{made.name}' is {made}, which does not convert safely."
        )
    return wanted.dtype
