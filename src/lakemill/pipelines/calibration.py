"""Learning when a cascade's first model is sure enough, with a bound that holds for rows to come.

The threshold is the lowest one at which the upper confidence bound of the disagreement is within the target for it and
all higher ones. The disagreement of the whole cascade falls as the threshold rises, so a bound for each threshold by
itself is enough (S. Bates and others, Distribution-Free, Risk-Controlling Prediction Sets, J. ACM 68, 2021, theorem 1).
The bound is that of Clopper and Pearson. It holds for rows that are drawn as the sample was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill.pipelines.intervals import upper_bound
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved
from lakemill_udfs.cascade import agreement, confidence, score_of
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.cascade import FIRST, THEN, CascadeStep
from lakemill_udfs.steps.kinds import model_steps
from lakemill_udfs.steps.traffic import EnsembleStep
from lakemill_udfs.tensors.spec import Kind


@dataclass(frozen=True)
class Learnt:
    """What a sample says.

    Args:
        threshold: Of the confidence; infinite if no threshold keeps the target, so that every row goes on.
        rows: Of the sample.
        answered: Rows of it that the first model answers alone.
        disagreeing: Of these, rows that the second model answers otherwise.
        bound: Upper bound of the share of all rows that the first model answers otherwise.
    """

    threshold: float
    rows: int
    answered: int
    disagreeing: int
    bound: float


def learn_threshold(sure: NDArray[Any], agrees: NDArray[Any], target: Mapping[str, float]) -> Learnt:
    """Return the lowest threshold at which the target holds.

    Args:
        sure: The first model's confidence, ``(n,)``.
        agrees: Whether the second model answers the same, ``(n,)``.
        target: ``agreement`` and ``confidence``, in 0..1.
    """
    rows, most = len(sure), 1 - target["agreement"]
    wrong = ~np.asarray(agrees, dtype=bool)
    allowed = -1
    while allowed < rows and upper_bound(allowed + 1, rows, target["confidence"]) <= most:
        allowed += 1
    if allowed < 0:
        return Learnt(math.inf, rows, 0, 0, upper_bound(0, rows, target["confidence"]))
    mistakes = np.sort(np.asarray(sure, float)[wrong])[::-1]
    limit = mistakes[allowed] if len(mistakes) > allowed else -math.inf  # the mistake that is one too many
    answered = np.asarray(sure, float) > limit
    threshold = float(np.asarray(sure, float)[answered].min()) if answered.any() else math.inf
    count = int((answered & wrong).sum())
    return Learnt(threshold, rows, int(answered.sum()), count, upper_bound(count, rows, target["confidence"]))


def calibrate(
    resolved: Resolved, kinds: Mapping[str, Kind], columns: Mapping[str, Any], rows: int
) -> tuple[Resolved, list[Learnt]]:
    """Return a pipeline whose cascades know their thresholds, and what was learnt of each.

    Args:
        resolved: The pipeline.
        kinds: What each column holds.
        columns: A sample of the rows to come, as a runner takes it.
        rows: Of the sample.

    Raises:
        ConfigError: ``CASCADE_SAMPLE`` if no row of the sample got through both models.
    """
    steps, learnt, place = list(resolved.pipeline.steps), list[Learnt](), 0
    for at, step in enumerate(steps):
        if isinstance(step, CascadeStep) and step.is_open:
            before = Resolved(
                Pipeline((*steps[:at], EnsembleStep(dict(step.members), "each")), inputs=resolved.pipeline.inputs),
                resolved.models[: place + 2],
                code=resolved.code,
            )
            learnt.append(_learn(step, before, kinds, columns, rows))
            steps[at] = replace(step, threshold=learnt[-1].threshold)
        place += len(model_steps(step))
    return replace(resolved, pipeline=replace(resolved.pipeline, steps=tuple(steps))), learnt


def _learn(
    step: CascadeStep, both: Resolved, kinds: Mapping[str, Kind], columns: Mapping[str, Any], rows: int
) -> Learnt:
    plan = make_plan(both, kinds, readable="any")
    batch = PipelineRunner(plan).run(columns, rows)
    if not len(batch.active):
        raise ConfigError(
            "CASCADE_SAMPLE",
            f"none of {rows} rows got through both models of the cascade.",
            hint="`lakemill predict --limit 20` shows why.",
        )
    members = plan.wiring.steps[-1].members
    specs = [replace(spec, name=name) for spec, name in members[0].outputs]
    first, then = ({spec.name: batch.values[f"{name}_{spec.name}"] for spec in specs} for name in (FIRST, THEN))
    sure = confidence(first[str(score_of(step, specs))], softmax=step.softmax)
    return learn_threshold(sure, agreement(first, then, specs), step.target)
