"""Running a cascade: the first model on all rows, the second on those that the first is not sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.measures import Measures
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.checks import judge
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.traffic import Gathered, Member
from lakemill_udfs.wiring import StepWiring

if TYPE_CHECKING:
    import polars as pl

CONFIDENCE = "confidence"
Named = Sequence[tuple[TensorSpec, str]]


@dataclass
class CascadeCall:
    """Each row to the first model, and to the second unless the first is sure.

    Args:
        step: Says when.
        wiring: Of the step.
        members: Its two models.
        condition: Compiled; None where a threshold was learnt.
        measures: Of the task.
    """

    step: CascadeStep
    wiring: StepWiring
    members: Sequence[Member]
    condition: pl.Expr | None
    measures: Measures

    def __post_init__(self) -> None:
        if self.step.is_open:
            raise ConfigError(
                "CASCADE_OPEN",
                "nothing was learnt yet of when the cascade's first model is sure.",
                hint="pipeline.calibrate(sample) learns it, or write it: unless: 'out.confidence >= 0.9'",
            )
        self.threshold = float("inf") if self.step.threshold is None else self.step.threshold

    def run(self, batch: Batch, columns: Mapping[str, Any]) -> list[int]:
        """Run, and return the nanoseconds of each model."""
        first, then = self.members
        rows = np.arange(len(batch.active))
        batch.note(first.model)
        outputs, failed, nanoseconds = first.run(batch)
        answered = np.delete(rows, list(failed)) if failed else rows
        is_sure = self._sure(outputs, len(answered))
        unsure = np.setdiff1d(rows, answered[is_sure], assume_unique=True)
        gathered = Gathered()
        gathered.add({name: array[is_sure] for name, array in outputs.items()}, answered[is_sure], {})
        elapsed = [nanoseconds, 0]
        batch.note(then.model, unsure)
        self.measures.cascade_rows += len(rows)
        self.measures.cascade_rows_then += len(unsure)
        if len(unsure):
            outputs, failed, elapsed[1] = then.run(batch, unsure)
            gathered.add(outputs, unsure, failed)
        gathered.put(batch, "predict", self.wiring.outputs)
        return elapsed

    def _sure(self, outputs: Arrays, rows: int) -> NDArray[np.bool_]:
        """Return for which rows the condition is true; not where it is null or cannot be told."""
        specs = [replace(spec, name=name) for spec, name in self.members[0].wiring.outputs]
        score = score_of(self.step, specs)
        if self.condition is None:
            return np.asarray(confidence(outputs[str(score)], softmax=self.step.softmax) >= self.threshold)
        columns = {spec.name: write_tensor(outputs[spec.name], spec) for spec in specs}
        if score is not None:
            columns.setdefault(CONFIDENCE, pa.array(confidence(outputs[score], softmax=self.step.softmax)))
        out = pa.StructArray.from_arrays([*columns.values()], names=[*columns])
        judged, failed = judge({"unless": self.condition}, pa.array([{}] * rows, pa.struct([])), out)
        found = judged.field("unless").to_numpy(zero_copy_only=False).astype(bool)
        sure = np.zeros(rows, dtype=bool)
        sure[np.delete(np.arange(rows), list(failed)) if failed else slice(None)] = found
        return sure


def score_of(step: CascadeStep, specs: Sequence[TensorSpec]) -> str | None:
    """Return the first model's output that says how sure it is; None if none is named or plain.

    Raises:
        ModelError: ``CASCADE_SCORE`` if there is no such output, or it is neither a number nor class scores.
    """
    floats = [spec.name for spec in specs if spec.dtype.startswith("float") and len(spec.shape) < 2]
    if step.score is None:
        if len(floats) != 1 and step.unless == "auto":
            raise ModelError(
                "CASCADE_SCORE",
                f"which output says how sure the first model is? It gives {', '.join(map(str, specs))}.",
                hint="score: <one number, or class scores>",
            )
        return floats[0] if len(floats) == 1 else None
    if step.score not in floats:
        raise ModelError(
            "CASCADE_SCORE",
            f"'{step.score}' is no number or class scores of the first model; it gives {', '.join(map(str, specs))}.",
        )
    return step.score


def confidence(scores: NDArray[Any], *, softmax: bool = False) -> NDArray[np.float64]:
    """Return how sure a model is of each row.

    Args:
        scores: ``(n,)``, or class scores ``(n, classes)``, of which the highest counts.
        softmax: Turn class scores into probabilities first.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim == 1:
        return values
    if softmax:
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        values = shifted / shifted.sum(axis=1, keepdims=True)
    return np.asarray(values.max(axis=1))


def agreement(one: Arrays, other: Arrays, specs: Sequence[TensorSpec]) -> NDArray[np.bool_]:
    """Return for which rows two models answer the same: equal labels, and the same best class of class scores.

    Raises:
        ConfigError: ``CASCADE_AGREEMENT`` if their outputs are neither.
    """
    same = []
    for spec in specs:
        left, right = one[spec.name], other[spec.name]
        if not spec.shape and not spec.dtype.startswith("float"):
            same.append(left == right)
        elif len(spec.shape) == 1 and spec.dtype.startswith("float"):
            same.append(left.argmax(axis=1) == right.argmax(axis=1))
    if not same:
        raise ConfigError(
            "CASCADE_AGREEMENT",
            f"when two models agree can be told of labels and of class scores; they give {', '.join(map(str, specs))}.",
            hint="write when the first model's answer stands: unless: 'out.score >= 0.9'",
        )
    return np.asarray(np.logical_and.reduce(same))
