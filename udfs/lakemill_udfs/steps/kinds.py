"""All kinds of steps, by the key that they have in YAML and JSON, and the models of each."""

from __future__ import annotations

from collections.abc import Sequence

from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep, SplitStep

TrafficStep = SplitStep | ShadowStep | EnsembleStep | KeyedStep | CascadeStep
"""Steps of several models."""

TRAFFIC_KINDS = (SplitStep, ShadowStep, EnsembleStep, KeyedStep, CascadeStep)

Step = ImageStep | ModelStep | PythonStep | FormatStep | TrafficStep

STEP_KINDS: dict[str, type[Step]] = {
    "image": ImageStep,
    "model": ModelStep,
    "python": PythonStep,
    "format": FormatStep,
    "split": SplitStep,
    "shadow": ShadowStep,
    "ensemble": EnsembleStep,
    "models": KeyedStep,
    "cascade": CascadeStep,
}
"""The key of a step in YAML and JSON, and its class."""


def model_steps(step: Step) -> tuple[ModelStep, ...]:
    """Return the models that a step runs, in the order that a plan has them."""
    if isinstance(step, ModelStep):
        return (step,)
    return tuple(step.members.values()) if isinstance(step, TRAFFIC_KINDS) else ()


def with_models(step: Step, models: Sequence[ModelStep]) -> Step:
    """Return a step with other models, in the order of ``model_steps``."""
    if isinstance(step, ModelStep):
        return models[0]
    return step.with_members(models) if isinstance(step, TRAFFIC_KINDS) else step


def shadow_places(steps: Sequence[Step]) -> frozenset[int]:
    """Return the places of challengers among a plan's models, whose results only stand beside the others'."""
    kinds = [(isinstance(step, ShadowStep) and at > 0) for step in steps for at, _ in enumerate(model_steps(step))]
    return frozenset(place for place, is_shadow in enumerate(kinds) if is_shadow)
