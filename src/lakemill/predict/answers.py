"""What models are compared by: labels, class scores or numbers, read off the columns of their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

PROBABILITIES = ("probability", "score", "confidence")


@dataclass(frozen=True)
class Answers:
    """The answers of one model, by row.

    Args:
        values: As they are in the table; None where there is none.
        texts: Labels as texts, of class scores the number of the best one; None for numbers, which are not labels.
        probabilities: Of the labels, if there are such.
    """

    values: NDArray[Any]
    texts: NDArray[Any] | None
    probabilities: NDArray[np.float64] | None

    def text(self, row: int) -> str:
        """Return the answer of one row, with its probability."""
        if self.texts is None:
            return f"{self.values[row]:.4g}"
        value, sure = self.values[row], np.nan
        if isinstance(value, list):
            sure = max(value, default=sure)
        elif self.probabilities is not None:
            sure = self.probabilities[row]
        return str(self.texts[row]) + ("" if np.isnan(sure) else f" ({sure:.3g})")

    def distance(self, other: Answers, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how much two models' answers differ in some rows; 0 for equal labels."""
        pairs = zip(self.values[places].tolist(), other.values[places].tolist(), strict=True)
        if self.texts is None or other.texts is None:
            return np.array([_apart(one, another) for one, another in pairs])
        if any(isinstance(value, list) for value in self.values[places].tolist()):
            return np.array([_variation(one, another) for one, another in pairs])
        unlike = np.asarray(self.texts[places] != other.texts[places], np.float64)
        if self.probabilities is None or other.probabilities is None:
            return unlike
        both = (self.probabilities[places] + other.probabilities[places]) / 2
        return np.asarray(np.nan_to_num(unlike * both), np.float64)


def _apart(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else float(np.nan_to_num(abs(one - other)))


def _variation(one: list[float] | None, other: list[float] | None) -> float:
    if one is None or other is None:
        return 0.0
    if len(one) != len(other):  # other classes: told by the best ones
        return float(int(np.argmax(one)) != int(np.argmax(other)))
    return float(np.nan_to_num(np.abs(np.subtract(one, other)).sum() / 2))


@dataclass(frozen=True)
class Answer:
    """The fields that models are compared by.

    Args:
        field: Of ``out`` and ``out_<name>``.
        probability: Beside it; None without one.
        is_number: Whether it is a number and no label.
    """

    field: str
    probability: str | None
    is_number: bool

    def names(self, struct: str) -> tuple[str, ...]:
        """Return the fields of a struct of results."""
        return tuple(f"{struct}.{name}" for name in (self.field, self.probability) if name is not None)

    def read(self, table: pa.Table, struct: str) -> Answers | None:
        """Return the answers in a struct; None if it has other fields."""
        name = f"{struct}.{self.field}"
        if name not in table.column_names:
            return None
        values = np.empty(table.num_rows, dtype=object)
        values[:] = table[name].to_pylist()
        sure = f"{struct}.{self.probability}"
        probabilities = table[sure].to_numpy().astype(float) if sure in table.column_names else None
        return Answers(values, None if self.is_number else _labels(values), probabilities)


def answer_of(fields: Mapping[str, pa.Field]) -> Answer | None:
    """Return what models are compared by: the first label or class scores, else the first number; None for neither.

    Args:
        fields: Of the predictions, structs' fields too.
    """
    inner = {name.removeprefix("out."): field.type for name, field in fields.items() if name.startswith("out.")}
    label = next((name for name, kind in inner.items() if _is_label(kind)), None)
    number = next((name for name, kind in inner.items() if types.is_floating(kind)), None)
    if label is None:
        return None if number is None else Answer(number, None, is_number=True)
    sure = next((name for name in PROBABILITIES if name in inner and types.is_floating(inner[name])), None)
    return Answer(label, sure, is_number=False)


def _is_label(kind: pa.DataType) -> bool:
    is_scores = types.is_list(kind) and types.is_floating(kind.value_type)
    return bool(types.is_string(kind) or types.is_integer(kind) or is_scores)


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = [
        str(int(np.argmax(value))) if isinstance(value, list) else None if value is None else str(value)
        for value in values
    ]
    return found
