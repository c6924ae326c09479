"""Running the models of one step: each on its rows, results put together in the rows' order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import LakemillError, RowError
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.step_call import Failures, StepCall
from lakemill_udfs.steps.routing import place_rows
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep, SplitStep
from lakemill_udfs.tensors.ragged import is_ragged, join
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import StepWiring

Places = NDArray[np.int64]
"""Positions among a batch's active rows."""


@dataclass
class Member:
    """One model of a step.

    Args:
        name: In the step.
        model: Its place in the plan.
        call: How it is called.
        wiring: Its own connections.
    """

    name: str
    model: int
    call: StepCall
    wiring: StepWiring

    def run(self, batch: Batch, places: Places | None = None) -> tuple[Arrays, Failures, int]:
        """Call the model for the active rows, or some of them.

        Returns:
            Its outputs by their names in the pipeline, of the rows that are good, in order; why others failed, by
            position among the active rows; and the nanoseconds that it took.
        """
        started = time.perf_counter_ns()
        inputs = {
            name: batch.values[source] if places is None else batch.values[source][places]
            for name, source in self.wiring.inputs
        }
        ragged = [name for name, source in self.wiring.inputs if is_ragged(inputs[name], batch.specs[source])]
        outputs, failed = self.call.run(inputs, ragged, len(batch.active) if places is None else len(places))
        if places is not None:
            failed = {int(places[at]): error for at, error in failed.items()}
        named = {name: outputs[spec.name] for spec, name in self.wiring.outputs}
        return named, failed, time.perf_counter_ns() - started


@dataclass
class Gathered:
    """Results of several models, each for rows of its own, on their way to one batch."""

    parts: list[Arrays] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    failed: Failures = field(default_factory=dict)

    def add(self, outputs: Arrays, places: Places, failed: Failures) -> None:
        """Add the results of the rows at ``places``, of which those in ``failed`` have none."""
        self.parts.append(outputs)
        self.places.append(places[~np.isin(places, list(failed))] if failed else places)
        self.failed |= failed

    def put(self, batch: Batch, stage: str, outputs: Sequence[tuple[TensorSpec, str]]) -> None:
        """Take failed rows out of a batch and set the results of the others."""
        batch.drop({place: (stage, error) for place, error in self.failed.items()})
        order = np.argsort(np.concatenate(self.places)) if self.places else np.empty(0, np.int64)
        for spec, name in outputs:
            batch.set(replace(spec, name=name), join([part[name] for part in self.parts], spec)[order])


@dataclass
class SplitCall:
    """Each row to the one model that it belongs to."""

    step: SplitStep
    wiring: StepWiring
    members: Sequence[Member]

    def run(self, batch: Batch, columns: Mapping[str, Any]) -> list[int]:
        """Run, and return the nanoseconds of each model."""
        arms = place_rows(self.step, columns, batch.rows)[batch.active]
        answers, gathered, elapsed = np.full(batch.rows, -1), Gathered(), []
        for arm, member in enumerate(self.members):
            places = np.flatnonzero(arms == arm)
            if not len(places):
                elapsed.append(0)
                continue
            answers[batch.active[places]] = member.model
            outputs, failed, nanoseconds = member.run(batch, places)
            gathered.add(outputs, places, failed)
            elapsed.append(nanoseconds)
        batch.scored_by.append(answers)
        gathered.put(batch, "predict", self.wiring.outputs)
        return elapsed


@dataclass
class EnsembleCall:
    """Each row to all models, and one result of theirs."""

    step: EnsembleStep
    wiring: StepWiring
    members: Sequence[Member]

    def run(self, batch: Batch, columns: Mapping[str, Any]) -> list[int]:
        """Run, and return the nanoseconds of each model; putting together counts as the last one's."""
        results: list[Arrays] = []
        elapsed = []
        for member in self.members:
            batch.note(member.model)
            outputs, failed, nanoseconds = member.run(batch)
            keep = batch.drop({place: ("predict", error) for place, error in failed.items()})
            results = [{name: array[keep] for name, array in one.items()} for one in results] if failed else results
            results.append(outputs)
            elapsed.append(nanoseconds)
        started = time.perf_counter_ns()
        self._combine(batch, results)
        elapsed[-1] += time.perf_counter_ns() - started
        return elapsed

    def _combine(self, batch: Batch, results: Sequence[Arrays]) -> None:
        if self.step.combine == "each":
            for member, outputs in zip(self.members, results, strict=True):
                for spec, name in member.wiring.outputs:
                    own = f"{member.name}_{name}"
                    batch.set(replace(spec, name=own), outputs[name])
            return
        combine = _mean if self.step.combine == "mean" else _vote
        for spec, name in self.wiring.outputs:
            batch.set(spec, combine([outputs[name] for outputs in results]))


def _mean(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.mean(np.stack(values), axis=0, dtype=np.float64).astype(values[0].dtype)


def _vote(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the most frequent value of each row; ``Counter`` keeps the first model's among equals."""
    winners = [Counter(row).most_common(1)[0][0] for row in zip(*(one.tolist() for one in values), strict=True)]
    result = np.empty(len(winners), values[0].dtype)
    result[:] = winners
    return result


@dataclass
class ShadowCall:
    """Each row to all models: the champion's results go on, each challenger's make a branch of the batch.

    Args:
        step: Says who is who.
        wiring: Of the step.
        members: Its models.
        only: Challengers that are called, and nobody else; None for all models.
    """

    step: ShadowStep
    wiring: StepWiring
    members: Sequence[Member]
    only: tuple[str, ...] | None = None

    def run(self, batch: Batch, columns: Mapping[str, Any]) -> list[int]:
        """Run, and return the nanoseconds of each model."""
        called = [member for member in self.members[1:] if self.only is None or member.name in self.only]
        batch.branches |= {member.name: batch.fork() for member in called}
        for member in self.members:
            batch.note(member.model)
        elapsed = dict.fromkeys((member.name for member in self.members), 0)
        if self.only is None:
            champion = self.members[0]
            outputs, failed, elapsed[champion.name] = champion.run(batch)
            _put(batch, champion, outputs, failed)
        for member in called:
            elapsed[member.name] = _contained(member, batch.branches[member.name])
        return [*elapsed.values()]


def _put(batch: Batch, member: Member, outputs: Arrays, failed: Failures) -> None:
    batch.drop({place: ("predict", error) for place, error in failed.items()})
    for spec, name in member.wiring.outputs:
        batch.set(replace(spec, name=name), outputs[name])


def _contained(member: Member, branch: Batch) -> int:
    """Run a challenger on its branch; whatever it raises is its rows' error there, and no other row's."""
    started = time.perf_counter_ns()
    try:
        outputs, failed, _ = member.run(branch)
    except LakemillError as error:
        failed = dict.fromkeys(range(len(branch.active)), RowError(error.code, error.message))
        outputs = {name: join([], spec) for spec, name in member.wiring.outputs}
    _put(branch, member, outputs, failed)
    return time.perf_counter_ns() - started
