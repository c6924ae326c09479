"""What of an earlier prediction a changed shadow makes out of date: the columns of its new challengers, or the row.

A pipeline's version is a hash, so what it was of is kept beside the checkpoint: the pipeline with the champion alone,
and each challenger. Without that note, rows are scored again whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.engine import Patch
from lakemill.predict.kept_notes import read_kept, write_kept
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.steps.kinds import TRAFFIC_KINDS
from lakemill_udfs.steps.traffic import CHAMPION, ShadowStep
from lakemill_udfs.wiring import Branch, Wiring

KEPT = "shadow"
NEW_FIELDS = ("pipeline_version", "models")
"""Of ``metadata``; all others say of the champion's result what they said."""


@dataclass(frozen=True)
class Shadowed:
    """What a pipeline's version is of.

    Args:
        core: Version of the pipeline with the champion alone.
        challengers: A hash of each challenger, in their order.
    """

    core: str
    challengers: Mapping[str, str]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Shadowed:
        """Return it of a resolved pipeline; one without a shadow, or with other steps of several models, is whole."""
        step, at = _shadow(pipeline)
        if step is None:
            return cls(pipeline.version, {})
        champion = (*pipeline.steps[:at], step.members[CHAMPION], *pipeline.steps[at + 1 :])
        digests = {name: _digest(member) for name, member in step.members.items() if name != CHAMPION}
        return cls(replace(pipeline, steps=champion).version, digests)


def remember(config: PredictConfig, pipeline: Pipeline) -> None:
    """Keep what a pipeline's version is of, before rows of that version are written.

    A job without a place for a checkpoint, as a ``full`` one into a catalog's table may be, keeps nothing.
    """
    has_place = config.output.checkpoint is not None or table_names.is_path(config.output.table)
    if _shadow(pipeline)[0] is None or not has_place:
        return
    kept, now = read_kept(config, KEPT), Shadowed.of(pipeline)
    if pipeline.version not in kept:
        said = {"core": now.core, "challengers": [*now.challengers.items()]}
        write_kept(config, KEPT, kept | {pipeline.version: said})


@dataclass(frozen=True)
class Remade:
    """Predictions of earlier versions, and what of them is made anew.

    Args:
        versions: Of the pipeline that made them.
        challengers: Whose columns; None for whole rows.
        patch: What of the rows changes then.
    """

    versions: tuple[str, ...]
    challengers: tuple[str, ...] | None = None
    patch: Patch | None = None


def remade(config: PredictConfig, plan: PredictPlan, versions: Sequence[str]) -> list[Remade]:
    """Return what is to be made anew of the predictions of earlier versions; of some, nothing.

    Args:
        config: The job.
        plan: Of the run.
        versions: That there are predictions of.
    """
    kept, now = read_kept(config, KEPT), Shadowed.of(plan.pipeline)
    whole, parts = list[str](), list[Remade]()
    for version in versions:
        was = _known(kept, version)
        changed = tuple(name for name in now.challengers if was.challengers.get(name) != now.challengers[name])
        if was.core != now.core or not all(_stands_alone(plan, name) for name in changed):
            whole.append(version)
        elif changed:
            columns = tuple(f"out_{name}" for name in changed)
            parts.append(Remade((version,), changed, Patch(columns, NEW_FIELDS, _places(plan, was, now, changed))))
    return [*parts, *([Remade(tuple(whole))] if whole else [])]


def _known(kept: Mapping[str, Any], version: str) -> Shadowed:
    """Return what a version is of; of one that is not kept, a pipeline without a shadow."""
    said = kept.get(version, {"core": version, "challengers": []})
    return Shadowed(said["core"], dict(said["challengers"]))


def _shadow(pipeline: Pipeline) -> tuple[ShadowStep | None, int]:
    """Return the one step of several models and its place, if it is a shadow."""
    several = [(step, at) for at, step in enumerate(pipeline.steps) if isinstance(step, TRAFFIC_KINDS)]
    return next(((step, at) for step, at in several if isinstance(step, ShadowStep) and len(several) == 1), (None, 0))


def _digest(member: ModelStep) -> str:
    alone = Pipeline((member,)).to_dict()
    return hashlib.sha256(json.dumps(alone, sort_keys=True).encode()).hexdigest()[:16]


def _stands_alone(plan: PredictPlan, name: str) -> bool:
    """Return whether a challenger's column is written, and nothing that it takes comes of the champion's results."""
    branch = next((one for one in plan.branches if one.name == name), None)
    return branch is not None and f"out_{name}" in plan.branch_types and _takes(plan.wiring, branch)


def _takes(wiring: Wiring, branch: Branch) -> bool:
    known = {column.spec.name for column in wiring.columns}
    known |= {name for step in wiring.steps[: branch.step] for _, name in step.outputs}
    own = known | {name for _, name in wiring.steps[branch.step].members[branch.member].outputs}
    for main, after in zip(wiring.steps[branch.step + 1 :], branch.steps, strict=True):
        if {source for _, source in main.inputs} <= known:
            known |= {name for _, name in main.outputs}
            own |= {name for _, name in main.outputs}
        if after is not None:
            if not {source for _, source in after.inputs} <= own:
                return False
            own |= {name for _, name in after.outputs}
    return True


def _places(plan: PredictPlan, was: Shadowed, now: Shadowed, changed: Sequence[str]) -> tuple[int | None, ...]:
    """Return where each time of a row stood before: those of steps, with the shadow's models side by side."""
    at, before = _shadow(plan.pipeline)[1], [*was.challengers]
    own = [None if name in changed else at + 1 + before.index(name) for name in now.challengers]
    after = len(plan.pipeline.steps) - at - 1
    return (*range(at + 1), *own, *(at + 1 + len(before) + step for step in range(after)))
