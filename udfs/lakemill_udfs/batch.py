"""One batch of rows on its way through a pipeline's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.images.step import Failure
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.tensors.spec import TensorSpec


@dataclass
class Batch:
    """One batch on its way through the steps.

    Args:
        rows: How many rows came in.
        values: Tensors by name, of the rows that are still good.
        active: Which rows those are.
        failures: Stage and reason of each row that is not.
        elapsed_ns: Time of each step so far.
        read_ns: Time of reading the columns.
        specs: Of each of ``values``.
        scored_by: For each model that may have answered, its place in the plan by row; -1 where it did not.
        branches: What a shadow step's challengers make of the batch, by their names.
    """

    rows: int
    values: Arrays = field(default_factory=dict)
    active: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    failures: dict[int, Failure] = field(default_factory=dict)
    elapsed_ns: list[int] = field(default_factory=list)
    read_ns: int = 0
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    scored_by: list[NDArray[np.int64]] = field(default_factory=list)
    branches: dict[str, Batch] = field(default_factory=dict)

    def set(self, spec: TensorSpec, values: NDArray[Any]) -> None:
        """Keep a tensor of the active rows, under its name."""
        self.values[spec.name], self.specs[spec.name] = values, spec

    def drop(self, failed: Mapping[int, Failure]) -> NDArray[np.bool_]:
        """Take rows out, by position among the active ones; return which positions stay."""
        keep = np.ones(len(self.active), dtype=bool)
        for position, failure in failed.items():
            keep[position] = False
            self.failures[int(self.active[position])] = failure
        if failed:
            self.active = self.active[keep]
            self.values = {name: array[keep] for name, array in self.values.items()}
        return keep

    def note(self, model: int, places: NDArray[np.int64] | None = None) -> None:
        """Note that a model answers the active rows, or those at ``places`` among them."""
        answers = np.full(self.rows, -1)
        answers[self.active if places is None else self.active[places]] = model
        self.scored_by.append(answers)

    def fork(self) -> Batch:
        """Return a batch that goes on from here by itself."""
        return replace(
            self,
            values=dict(self.values),
            specs=dict(self.specs),
            failures={},
            elapsed_ns=[],
            scored_by=[],
            branches={},
        )

    def adopt(self, other: Batch, names: Sequence[str]) -> None:
        """Take over values that another batch of the same rows has made meanwhile, and the failures of its rows."""
        gone = {at: other.failures[row] for at, row in enumerate(self.active) if row in other.failures}
        self.drop(gone)
        places = np.searchsorted(other.active, self.active)
        for name in names:
            self.set(other.specs[name], other.values[name][places])
