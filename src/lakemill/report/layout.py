"""From counts to what the page shows: confusion matrix, classes, scores, errors and models. No Spark here."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence

from lakemill.report.values import Bin, ClassCount, Confusion, Count, ErrorGroup, ModelUse, Pair
from lakemill_udfs.report_counts import BINS

SHOWN_CLASSES = 30  # a matrix of more is not read by a person
SHOWN_MISTAKES = 10
SHOWN_GROUPS = 20


def confusion(counts: Sequence[Count]) -> Confusion | None:
    """Lay out rows by truth and label, mistakes first, as a matrix.

    With too many classes for a matrix, only the most frequent mistakes stay. None without counts.
    """
    if not counts:
        return None
    pairs = [Pair(count.one, count.two, count.rows) for count in counts if count.two is not None]
    mistakes = tuple(pair for pair in pairs if pair.truth != pair.predicted)[:SHOWN_MISTAKES]
    names = sorted({name for pair in pairs for name in (pair.truth, pair.predicted)}, key=natural)
    if len(names) > SHOWN_CLASSES:
        return Confusion((), (), (), mistakes)
    rows = Counter({(pair.truth, pair.predicted): pair.rows for pair in pairs})
    matrix = tuple(tuple(rows[truth, label] for label in names) for truth in names)
    classes = tuple(
        ClassCount(label, sum(row[at] for row in matrix), sum(matrix[at]), matrix[at][at])
        for at, label in enumerate(names)
    )
    return Confusion(tuple(names), matrix, classes, mistakes)


def natural(text: str) -> list[tuple[float, str]]:
    """Return a sorting key that puts ``10`` after ``9`` and numbers before words."""
    return [(int(part) if part.isdecimal() else math.inf, part) for part in re.split(r"(\d+)", text) if part]


def labels(counts: Sequence[Count]) -> tuple[ClassCount, ...]:
    """Return the most frequent labels, in natural order."""
    frequent = sorted(counts, key=lambda count: -count.rows)[:SHOWN_CLASSES]
    return tuple(ClassCount(count.one, count.rows) for count in sorted(frequent, key=lambda count: natural(count.one)))


def scores(counts: Sequence[Count]) -> tuple[Bin, ...]:
    """Return rows and mistakes in equal steps of the score; empty without scores."""
    found = {int(count.one): (count.rows, count.wrong) for count in counts}
    return tuple(Bin(at / BINS, (at + 1) / BINS, *found.get(at, (0, 0))) for at in range(BINS)) if found else ()


def errors(counts: Sequence[Count]) -> tuple[ErrorGroup, ...]:
    """Return the most frequent ways to fail, each with one or two keys."""
    return tuple(
        ErrorGroup(
            count.one, count.two or "", count.message or "", count.rows, tuple(dict.fromkeys((count.first, count.last)))
        )
        for count in counts[:SHOWN_GROUPS]
    )


def models(counts: Sequence[Count]) -> tuple[ModelUse, ...]:
    """Return the models that made the rows, one entry for each pipeline version and model."""
    found: list[ModelUse] = []
    for count in counts:
        run = json.loads(count.one)
        found += [
            ModelUse(
                run.get("pipeline"),
                run.get("pipeline_version"),
                model.get("name"),
                model.get("version"),
                model.get("sha256"),
                count.rows,
            )
            for model in run.get("models", ())
        ]
    return tuple(found[:SHOWN_GROUPS])
