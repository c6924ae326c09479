"""Which column or earlier output feeds each input of each step, worked out once before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lakemill_udfs.errors import LakemillError, ModelError, TableError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.one_array import NAME as ONE_ARRAY
from lakemill_udfs.models.one_array import one_array
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.formats import format_specs
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import Step, TrafficStep, model_steps
from lakemill_udfs.steps.traffic import ShadowStep
from lakemill_udfs.steps.traffic_fit import outputs_of, require_alike, require_key
from lakemill_udfs.tensors.column_inputs import InputColumn
from lakemill_udfs.tensors.spec import Kind, TensorSpec, declared
from lakemill_udfs.wiring_builder import Builder


@dataclass(frozen=True)
class StepWiring:
    """One step's connections.

    Args:
        inputs: The step's own input names, and the value (column or earlier output) that feeds each.
        casts: dtype that a value is cast to first, by the step's own input name.
        outputs: The step's own outputs as specs, and the name that each gets.
        members: Of a step of several models, each one's own connections, in their order.
    """

    inputs: tuple[tuple[str, str], ...] = ()
    casts: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[tuple[TensorSpec, str], ...] = ()
    members: tuple[StepWiring, ...] = ()


@dataclass(frozen=True)
class Branch:
    """What follows from a challenger's results, beside what follows from the champion's.

    Args:
        name: The challenger's.
        step: Place of the shadow step in the pipeline.
        member: Place of the challenger among the step's models.
        steps: Connections of the later steps; None for one that does not depend on the challenger.
        outputs: Fields of ``out_<name>``.
    """

    name: str
    step: int
    member: int
    steps: tuple[StepWiring | None, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Wiring:
    """A whole pipeline's connections.

    Args:
        steps: One for each step.
        columns: Source columns that feed tensors.
        raw_columns: Source columns that are read as they are, by image steps or to tell where a row goes.
        outputs: The fields of ``out``: those the pipeline names, or what no later step reads.
        branches: One for each challenger of a shadow step.
    """

    steps: tuple[StepWiring, ...]
    columns: tuple[InputColumn, ...]
    raw_columns: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    branches: tuple[Branch, ...] = ()


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
    builder = Builder(table, {spec.name: spec for spec in pipeline.inputs}, problems=problems)
    coming = iter(models)
    steps: list[StepWiring] = []
    branches: list[_BranchBuilder] = []
    for at, step in enumerate(pipeline.steps):
        own = [next(coming) for _ in model_steps(step)]
        try:
            challengers = [*step.members][1:] if isinstance(step, ShadowStep) else []
            forks = [builder.fork() for _ in challengers]
            steps.append(_wire_step(builder, step, own))
            for branch in () if builder.is_incomplete else branches:
                branch.follow(step, own)
            for member, fork in enumerate(() if builder.is_incomplete else forks, 1):
                branches.append(_BranchBuilder.of(fork, challengers[member - 1], at, member, steps[-1]))
        except LakemillError as error:
            builder.report(error)
            steps[at:] = [StepWiring()]
    unknown = [] if builder.is_incomplete else [name for name in pipeline.outputs if name not in builder.made]
    if unknown:
        missing = ModelError(
            "OUTPUT_UNKNOWN",
            f"no step makes '{unknown[0]}'; there are: {', '.join(builder.made)}.",
            hint="a column of the source is carried by source.columns.",
        )
        builder.report(missing)
    outputs = tuple(builder.made[name] for name in pipeline.outputs or builder.leaves if name in builder.made)
    ends = tuple(branch.end(pipeline.outputs) for branch in branches)
    return Wiring(tuple(steps), tuple(builder.columns.values()), tuple(builder.raw), outputs, ends)


def _wire_step(builder: Builder, step: Step, models: Sequence[ModelSpec | None]) -> StepWiring:
    if isinstance(step, ImageStep):
        return _wire_image(builder, step)
    if isinstance(step, PythonStep):
        return _wire_function(builder, step)
    if isinstance(step, FormatStep):
        return _wire_format(builder, step)
    known = [model for model in models if model is not None]
    if len(known) < len(models) or not models:  # one was not found, which is reported already
        builder.is_incomplete = True
        return StepWiring()
    if isinstance(step, ModelStep):
        fed = _feed_model(builder, step, known[0], builder.leaves)
        return _made(builder, fed, f"model '{known[0].name}'")
    return _wire_traffic(builder, step, known)


def _wire_traffic(builder: Builder, step: TrafficStep, models: Sequence[ModelSpec]) -> StepWiring:
    """Feed each model from the same values, and make what the step gives."""
    leaves = builder.leaves
    for column in step.key_columns:
        require_key(column, builder.table)
        builder.raw[column] = None
    pairs = list(zip(step.members.values(), models, strict=True))
    if isinstance(step, KeyedStep):
        require_alike([*step.members], models)
        pairs = pairs[:1]  # the others' connections are the same
    members = [_feed_model(builder, member, model, leaves) for member, model in pairs]
    outputs = outputs_of(step, members)
    wired = StepWiring(tuple(pair for one in members for pair in one.inputs), {}, outputs, tuple(members))
    return _made(builder, wired, f"the {type(step).__name__}")


def _made(builder: Builder, wired: StepWiring, who: str) -> StepWiring:
    return replace(wired, outputs=tuple(builder.make(spec, name, who) for spec, name in wired.outputs))


def _wire_image(builder: Builder, step: ImageStep) -> StepWiring:
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


def _feed_model(builder: Builder, step: ModelStep, model: ModelSpec, leaves: Sequence[str]) -> StepWiring:
    """Connect a model's inputs; its outputs are not made yet.

    Args:
        builder: Of the pipeline.
        step: Names what feeds what.
        model: Its specs.
        leaves: What no step has read.
    """
    who = f"model '{model.name}'"
    inputs, casts = [], {}
    wanted: Mapping[str, TensorSpec | None] = (
        {spec.name: spec for spec in model.inputs} or dict.fromkeys(step.inputs) or dict.fromkeys(leaves)
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
        if not is_named and len(wanted) == 1 and len(leaves) == 1:
            source = leaves[0]  # the only value there is feeds the only input there is, whatever it is called
        elif not is_named and len(wanted) == 1 and ONE_ARRAY in builder.table:
            source = ONE_ARRAY
        if spec is not None and spec.nullable and source not in builder.made and source not in builder.table:
            continue  # an optional input that nothing feeds
        cast = builder.feed(source, spec, who)
        inputs.append((name, source))
        if cast:
            casts[name] = cast
    return StepWiring(tuple(inputs), casts, tuple(_declared(step, model, who)))


def _as_one_array(builder: Builder, step: ModelStep, model: ModelSpec) -> Mapping[str, TensorSpec | None]:
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


def _wire_function(builder: Builder, step: PythonStep) -> StepWiring:
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


def _wire_format(builder: Builder, step: FormatStep) -> StepWiring:
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


@dataclass
class _BranchBuilder:
    """Connects the steps after a shadow step once more, from a challenger's results.

    Args:
        builder: As it was after the shadow step, with the challenger's results in place of the champion's.
        touched: Values that depend on the challenger.
    """

    builder: Builder
    name: str
    step: int
    member: int
    touched: set[str]
    steps: list[StepWiring | None] = field(default_factory=list)

    @classmethod
    def of(cls, builder: Builder, name: str, step: int, member: int, shadow: StepWiring) -> _BranchBuilder:
        builder.read |= {source for _, source in shadow.inputs}
        outputs = shadow.members[member].outputs
        for spec, output in outputs:
            builder.make(spec, output, f"challenger '{name}'")
        return cls(builder, name, step, member, {output for _, output in outputs})

    def follow(self, step: Step, models: Sequence[ModelSpec | None]) -> None:
        """Connect a later step.

        Raises:
            ModelError: the challenger's results do not fit it; ``SHADOW_STEPS`` for one of several models.
        """
        wired = _wire_step(self.builder, step, models)
        made = {name for _, name in wired.outputs}
        if not self.touched & {source for _, source in wired.inputs}:
            self.touched -= made
            self.steps.append(None)
            return
        if len(models) > 1:
            raise ModelError(
                "SHADOW_STEPS",
                f"a step of several models cannot read what challenger '{self.name}' gives.",
                hint="put the split, ensemble or shadow into jobs of their own.",
            )
        self.touched |= made
        self.steps.append(wired)

    def end(self, names: Sequence[str]) -> Branch:
        """Return what was connected; ``names`` are the pipeline's outputs."""
        made = self.builder.made
        chosen = [name for name in names or self.builder.leaves if name in made and name in self.touched]
        if "error" in chosen:
            raise ModelError("OUTPUT_NAME", f"out_{self.name} has a field 'error' of its own; rename the output.")
        outputs = tuple(made[name] for name in chosen)
        return Branch(self.name, self.step, self.member, tuple(self.steps), outputs)
