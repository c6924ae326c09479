"""Running a model for each key: rows grouped by key, models loaded as keys come up and dropped when memory ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import RowError
from lakemill_udfs.measures import Measures, measured
from lakemill_udfs.models.cache import ModelCache
from lakemill_udfs.models.model import Arrays, ModelSpec
from lakemill_udfs.models.one_array import spread
from lakemill_udfs.step_call import StepCall
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.routing import key_texts
from lakemill_udfs.traffic import Gathered, Member
from lakemill_udfs.wiring import StepWiring

KEYED = ModelCache()
"""The models of keys that this process has loaded, for all tasks; apart from the others, which they would push out."""

TURN = threading.Lock()
"""Whose turn it is to load and drop: the local engine's workers may be threads of one process."""

UNBOUNDED = 2**62  # models: memory is what limits them


@dataclass
class KeyedCall:
    """Each row to its key's model.

    Args:
        step: Says which.
        wiring: Of the step; its one member is the same for all models.
        models: Of the plan, those of the step.
        place: Of the first of them in the plan.
        make_call: A step's call of what it is given.
        measures: Of the task.
        threads: Of a model inside one task.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    step: KeyedStep
    wiring: StepWiring
    models: Sequence[ModelSpec]
    place: int
    make_call: Callable[[Callable[[Arrays], Arrays], StepWiring, str], StepCall]
    measures: Measures
    threads: int
    device: str
    _members: dict[int, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._at = {name: at for at, name in enumerate(self.step.table)}
        self._other = -1 if self.step.fallback is None else len(self._at)

    def run(self, batch: Batch, columns: Mapping[str, Any]) -> list[int]:
        """Run, and return the nanoseconds of all models together."""
        started = time.perf_counter_ns()
        texts = key_texts(columns, self.step.key_columns)
        own = np.array([self._at.get(texts[row], self._other) for row in batch.active], np.int64)
        batch.scored_by.append(np.full(batch.rows, -1))
        batch.scored_by[-1][batch.active] = np.where(own < 0, -1, own + self.place)
        order = np.argsort(own, kind="stable")
        kinds, starts = np.unique(own[order], return_index=True)
        gathered = Gathered()
        for model, places in zip(kinds.tolist(), np.split(order, starts[1:]), strict=False):  # no row: no kind
            if model < 0:
                unknown = RowError(
                    "MODEL_KEY_UNKNOWN", f"the row's '{self.step.by}' has no model.", hint="models: {fallback: URI}"
                )
                gathered.failed |= dict.fromkeys(places.tolist(), unknown)
                continue
            member = self._loaded(model)
            outputs, failed, _ = member.run(batch, places)
            member.call.call = _dropped
            gathered.add(outputs, places, failed)
        gathered.put(batch, "predict", self.wiring.outputs)
        return [time.perf_counter_ns() - started]

    def _loaded(self, model: int) -> Member:
        """Return a model ready to be called; what was learnt from its calls is kept, the model only in the cache."""
        with TURN:
            loaded, fresh = KEYED.get(self.models[model], threads=self.threads, device=self.device, most=UNBOUNDED)
            if fresh:
                self.measures.model_load_seconds += loaded.load_seconds
                self.measures.models_loaded += 1
                self.measures.model_bytes += loaded.model_bytes
                self._drop()
        predict = spread(measured(loaded, self.measures), self.models[model].inputs)
        if model not in self._members:
            wiring = self.wiring.members[0]
            call = self.make_call(predict, wiring, "predict")
            self._members[model] = Member(self.models[model].name, self.place + model, call, wiring)
        self._members[model].call.call = predict
        return self._members[model]

    def _drop(self) -> None:
        """Drop the models that were not used for longest, until the others fit; the newest stays."""
        held = sum(entry.model_bytes for entry in KEYED.entries.values())
        while held > self.step.memory_mib * 2**20 and len(KEYED.entries) > 1:
            held -= KEYED.entries.popitem(last=False)[1].model_bytes
            self.measures.models_dropped += 1


def _dropped(inputs: Arrays) -> Arrays:
    """Stand for a model between two calls, so that only the cache holds it."""
    raise AssertionError(f"a model that is not held was called with {len(inputs)} inputs")
