"""``Pipeline``: steps and checks as one frozen value with a JSON form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.callables import must_travel, name_of
from lakemill_udfs.steps.declared import Check, ModelStep, PythonStep
from lakemill_udfs.steps.kinds import STEP_KINDS, Step, model_steps
from lakemill_udfs.steps.traffic import EnsembleStep
from lakemill_udfs.tensors.spec import TensorSpec, declared

KIND_OF_STEP = {step: kind for kind, step in STEP_KINDS.items()}


@dataclass(frozen=True)
class Pipeline:
    """The declared way from columns to results: steps in order, then checks.

    Data passes by name: each step reads columns and earlier outputs. What no later step reads is the result, ``out``.

    Args:
        steps: One at least.
        checks: Conditions on inputs and outputs.
        outputs: The steps' outputs that make up ``out``, in this order; empty for those that no later step reads.
        inputs: What columns hold that do not say it themselves (plain BINARY), or that may be null.

    Raises:
        ConfigError: ``PIPELINE_EMPTY`` without a step, ``CHECK_NAME`` if two checks share a name.
    """

    steps: tuple[Step, ...]
    checks: tuple[Check, ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()

    def __post_init__(self) -> None:
        kinds = {"steps": get_args(Step), "checks": (Check,), "outputs": (str,), "inputs": (TensorSpec,)}
        for name, kind in kinds.items():
            _must_be_all(getattr(self, name), name, kind)
        parts = [step.parts if isinstance(step, EnsembleStep) else (step,) for step in self.steps]
        object.__setattr__(self, "steps", tuple(step for one in parts for step in one))
        object.__setattr__(self, "checks", tuple(self.checks))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if not self.steps:
            raise ConfigError(
                "PIPELINE_EMPTY", "the pipeline has no steps.", hint="steps: [{model: {uri: 'models:/name@alias'}}]"
            )
        names = [check.name for check in self.checks]
        if len(names) != len(set(names)):
            raise ConfigError("CHECK_NAME", f"two checks have the same name: {', '.join(names)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: ``{"steps": [{"image": {...}}], "checks": [...]}``, defaults left out.

        Raises:
            ConfigError: ``FUNCTION_LOCAL`` if a function has no import path.
        """
        for function in self.functions:
            must_travel(function, "YAML or a registry")
        return self._form()

    def _form(self) -> dict[str, Any]:
        form: dict[str, Any] = {"steps": [{KIND_OF_STEP[type(step)]: _changed(step)} for step in self.steps]}
        if self.checks:
            form["checks"] = [_changed(check) for check in self.checks]
        if self.outputs:
            form["outputs"] = list(self.outputs)
        if self.inputs:
            form["inputs"] = {spec.name: spec.to_dict() for spec in self.inputs}
        return form

    @property
    def functions(self) -> tuple[Any, ...]:
        """The users' functions of its steps and checks: import paths, or the functions that have none."""
        steps = [step.function for step in self.steps if isinstance(step, PythonStep)]
        return (*steps, *(check.function for check in self.checks if check.function is not None))

    @property
    def model_steps(self) -> tuple[ModelStep, ...]:
        """The models of its steps, in the order that a plan has them."""
        return tuple(model for step in self.steps for model in model_steps(step))

    @property
    def artifacts(self) -> tuple[str, ...]:
        """What the files of each of ``model_steps`` are called in a logged pipeline."""
        counts = [(index, len(model_steps(step)), isinstance(step, ModelStep)) for index, step in enumerate(self.steps)]
        return tuple(
            f"model_{index}" if is_alone else f"model_{index}{member:04d}"
            for index, count, is_alone in counts
            for member in range(count)
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Return the pipeline of a JSON form that ``to_dict`` made.

        Raises:
            ConfigError: ``PIPELINE_STEP`` if a step's kind is unknown, or there is no list of steps.
        """
        if not isinstance(raw.get("steps"), list | tuple):
            raise ConfigError(
                "PIPELINE_STEP", "a pipeline has 'steps', a list.", hint="steps: [{model: {uri: m.onnx}}]"
            )
        return cls(
            tuple(step_from_dict(step) for step in raw["steps"]),
            tuple(Check(**check) for check in raw.get("checks", ())),
            tuple(raw.get("outputs", ())),
            tuple(declared(name, spec) for name, spec in raw.get("inputs", {}).items()),
        )

    @property
    def version(self) -> str:
        """Hash of the JSON form; of a resolved pipeline it also covers the sha256 of models and of functions' code.

        What a cascade learnt of a sample is left out: the row's models say who answered.
        """
        form = self._form()
        for step in form["steps"]:
            step.get("cascade", {}).pop("threshold", None)
        return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]


def _must_be_all(values: Any, name: str, kinds: tuple[type, ...]) -> None:
    """Raise if an argument of a pipeline is no sequence of such values."""
    wrong = [values] if isinstance(values, (str, *kinds)) or not isinstance(values, Iterable) else list(values)
    wrong = [value for value in wrong if not isinstance(value, kinds) or value is values]
    if wrong:
        raise ConfigError(
            "PIPELINE_ARGUMENTS",
            f"'{name}' of a pipeline is a list of {', '.join(kind.__name__ for kind in kinds)}; "
            f"got {type(wrong[0]).__name__}.",
            hint="Pipeline([ModelStep('model.onnx')])",
        )


def step_from_dict(raw: Mapping[str, Any]) -> Step:
    """Return the step of its JSON form, one key naming its kind.

    Raises:
        ConfigError: ``PIPELINE_STEP`` if there is not exactly one known kind, or it does not take such arguments.
    """
    if len(raw) != 1 or next(iter(raw)) not in STEP_KINDS:
        raise ConfigError(
            "PIPELINE_STEP", f"a step is one of {', '.join(STEP_KINDS)}; got {', '.join(map(str, raw)) or 'nothing'}."
        )
    kind, arguments = next(iter(raw.items()))
    lists_to_tuples: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()
    }
    try:
        return STEP_KINDS[kind](**lists_to_tuples)
    except TypeError as error:
        raise ConfigError(
            "PIPELINE_STEP",
            f"the {kind} step does not take these arguments: {', '.join(arguments)}.",
            hint="a pipeline that a newer version logged needs that version.",
        ) from error


def _changed(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if given != default:
            plain[field.name] = _plain(given)
    return plain


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples and dicts for mappings, at any depth, and names for functions."""
    if callable(value):
        return name_of(value)
    if isinstance(value, ModelStep):
        return _changed(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
