"""Reading what a predictions table says of the models that made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, opened
from lakemill.engines.schemas import fields_of
from lakemill.engines.sql import all_equal
from lakemill.pipelines.intervals import ratio_interval
from lakemill.pipelines.resolving import Resolved
from lakemill.predict.answers import Answers, answer_of
from lakemill.predict.evidence import MOST_LABELS, Difference, ModelEvidence, Share, Speed
from lakemill.predict.run import own_rows
from lakemill.predict.source import source_key
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import Step, model_steps
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep

MOST_DIFFERENCES = 12
MOST_ANSWERS = 900  # pairs of them: a matrix of 30 labels
TRUTH = "label"

Whose = Literal["own", "last", "shared", "shadow"]
"""Whose the row's result is, where a model scored it: the model's own, the last model's, of all together, or in a
column of its own."""


@dataclass(frozen=True)
class Played:
    """A model's part in a pipeline.

    Args:
        role: Its name there.
        model: Which one.
        entry: Place of its time.
        whose: Whose the results are.
    """

    role: str
    model: ModelSpec
    entry: int
    whose: Whose


def gather(config: PredictConfig, resolved: Resolved, engine: Engine) -> tuple[ModelEvidence, ...]:
    """Return what a job's predictions of the pipeline as it is now say of each of its models.

    Args:
        config: The job.
        resolved: Its pipeline.
        engine: Where it runs.

    Raises:
        ConfigError: ``EVIDENCE_NONE`` if no row was scored by these models, ``EVIDENCE_KEYED`` for a model a key.
        TableError: ``TABLE_NOT_FOUND``.
    """
    if any(isinstance(step, KeyedStep) for step in resolved.pipeline.steps):
        raise ConfigError("EVIDENCE_KEYED", "the models of keys score other rows each, so they are not compared.")
    snapshot, version = opened(engine, config.output.table), resolved.pipeline.version
    fields, played = fields_of(snapshot.schema), [*_played(resolved)]
    structs = ["out", *(f"out_{one.role}" for one in played if one.whose == "shadow")]
    answer = answer_of(fields)
    names = [name for struct in structs for name in (answer.names(struct) if answer else ()) if name in fields]
    key = [name for name in source_key(config, snapshot.schema.names) if name in fields]
    names += [f"{struct}.error" for struct in structs[1:]] + [name for name in (TRUTH,) if name in fields]
    rows = engine.rows(snapshot).where(own_rows(config)).where(all_equal({"metadata.pipeline_version": version}))
    wanted = dict.fromkeys(["error.code", "metadata.models", "metadata.elapsed_ns", *names, *key])
    table = rows.select([*wanted]).to_arrow()
    if not table.num_rows:
        raise ConfigError(
            "EVIDENCE_NONE",
            f"no row of '{config.output.table}' was scored by the models that the pipeline names now.",
            hint="run the job first; after an alias moved or a model changed, the evidence begins anew.",
        )
    read = {one: answer.read(table, one) for one in structs} if answer else {}
    reader = _Reader(table, {one: answers for one, answers in read.items() if answers is not None}, key)
    return tuple(map(reader.model, played))


def _played(resolved: Resolved) -> Iterator[Played]:
    models, entry = iter(resolved.models), 0
    for step in resolved.pipeline.steps:
        own = model_steps(step)
        roles = list(getattr(step, "members", ["model"]))
        for at, (role, _) in enumerate(zip(roles, own, strict=False)):
            yield Played(role, next(models), entry + at, _whose(step, at))
        entry += max(1, len(own))


def _whose(step: Step, at: int) -> Whose:
    if isinstance(step, ShadowStep) and at:
        return "shadow"
    return "last" if isinstance(step, CascadeStep) else "shared" if isinstance(step, EnsembleStep) else "own"


class _Reader:
    """Reads a table of evidence.

    Args:
        table: One row for each prediction.
        answers: What each struct of results says; empty if nothing that models can be compared by.
        key: Key columns.
    """

    def __init__(self, table: pa.Table, answers: dict[str, Answers], key: Sequence[str]) -> None:
        self._table, self._answers, self._key = table, answers, key
        lists = table["metadata.models"].combine_chunks()
        self._parents = pc.list_parent_indices(lists).to_numpy()
        self._sha256 = np.array(pc.struct_field(lists.flatten(), "sha256").to_pylist())
        times = table["metadata.elapsed_ns"].combine_chunks()
        self._times = times.flatten().to_numpy().reshape(table.num_rows, -1)
        _, self._batch = np.unique(self._times, axis=0, return_inverse=True)  # a batch's rows have the same times
        self._failed = table["error.code"].is_valid().to_numpy()
        self._truth = _texts(table[TRUTH]) if TRUTH in table.column_names else None

    def model(self, played: Played) -> ModelEvidence:
        scored, good, failed, answers = self._rows(played)
        rows, is_shadow = int(scored.sum()), played.whose == "shadow"
        correct = None if played.whose == "shared" else self._correct(answers, good)
        return ModelEvidence(
            played.role,
            played.model.name,
            played.model.version,
            played.model.sha256,
            rows,
            Share(int((scored & failed).sum()), rows),
            correct,
            self._by_label(answers, good) if correct is not None else (),
            self._agreement(answers, good) if is_shadow else None,
            self._pairs(answers, good) if is_shadow else (),
            self._differences(answers, good) if is_shadow else (),
            self._speed(scored, played.entry),
        )

    def _rows(self, played: Played) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], Answers | None]:
        """Return which rows a model scored, has an answer for, and failed; and its answers."""
        scored, failed, own = np.zeros(self._table.num_rows, dtype=bool), self._failed, "out"
        mine = self._sha256 == played.model.sha256
        scored[self._parents[mine]] = True
        good = scored & ~failed
        if played.whose == "last":
            is_last = np.append(self._parents[1:] != self._parents[:-1], True) if len(self._parents) else mine
            good = np.zeros_like(scored)
            good[self._parents[mine & is_last]] = True
            good &= ~failed
        if played.whose == "shadow":
            own = f"out_{played.role}"
            failed = pc.struct_field(self._table[f"{own}.error"], "code").is_valid().to_numpy()
            good = scored & ~failed
        return scored, good, failed, self._answers.get(own)

    def _correct(self, answers: Answers | None, good: NDArray[np.bool_]) -> Share | None:
        if answers is None or answers.texts is None or self._truth is None:
            return None
        known = good & (self._truth != None)  # noqa: E711 -- element by element
        return Share(int((answers.texts[known] == self._truth[known]).sum()), int(known.sum()))

    def _by_label(self, answers: Answers | None, good: NDArray[np.bool_]) -> tuple[tuple[str, Share], ...]:
        assert answers is not None  # noqa: S101 -- asked for only where there is a share of all
        assert answers.texts is not None  # noqa: S101
        assert self._truth is not None  # noqa: S101
        known = good & (self._truth != None)  # noqa: E711 -- element by element
        rows, right = (
            Counter(self._truth[known].tolist()),
            Counter(self._truth[known & (answers.texts == self._truth)].tolist()),
        )
        most = sorted(label for label, _ in rows.most_common(MOST_LABELS))
        return tuple((label, Share(right[label], rows[label])) for label in most)

    def _both(self, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(good & ~self._failed)

    def _agreement(self, answers: Answers | None, good: NDArray[np.bool_]) -> Share | None:
        champion = self._answers.get("out")
        if answers is None or champion is None or answers.texts is None or champion.texts is None:
            return None
        both = self._both(good)
        return Share(int((answers.texts[both] == champion.texts[both]).sum()), int(both.sum()))

    def _pairs(self, answers: Answers | None, good: NDArray[np.bool_]) -> tuple[tuple[str, str, int], ...]:
        champion = self._answers.get("out")
        if answers is None or champion is None or answers.texts is None or champion.texts is None:
            return ()
        both = self._both(good)
        counted = Counter(zip(champion.texts[both].tolist(), answers.texts[both].tolist(), strict=True))
        return tuple((ours, theirs, rows) for (ours, theirs), rows in counted.most_common(MOST_ANSWERS))

    def _differences(self, answers: Answers | None, good: NDArray[np.bool_]) -> tuple[Difference, ...]:
        champion = self._answers.get("out")
        if answers is None or champion is None:
            return ()
        places = np.flatnonzero(self._both(good))
        sizes = champion.distance(answers, places)
        most = np.argsort(-sizes, kind="stable")[:MOST_DIFFERENCES]
        return tuple(
            Difference(
                self._key_text(row),
                champion.text(row),
                answers.text(row),
                None if self._truth is None else self._truth[row],
                size,
            )
            for row, size in zip(places[most].tolist(), sizes[most].tolist(), strict=True)
            if size > 0
        )

    def _key_text(self, row: int) -> str:
        values = (self._table[name][row].as_py() for name in self._key)
        return " · ".join(str(value) for value in values if value is not None)

    def _speed(self, scored: NDArray[np.bool_], entry: int) -> Speed:
        """Return a model's time: that of a batch is divided by all of its rows, also those that it did not score."""
        nanoseconds = np.bincount(self._batch, self._times[:, entry])
        rows = np.bincount(self._batch, scored)
        used = (rows > 0) & (nanoseconds > 0)
        total, counted = int(nanoseconds[used].sum()), int(rows[used].sum())
        return Speed(total, counted, int(used.sum()), ratio_interval(nanoseconds[used], rows[used]))


def _texts(column: pa.ChunkedArray) -> NDArray[Any]:
    found = np.empty(len(column), dtype=object)
    found[:] = [None if value is None else str(value) for value in column.to_pylist()]
    return found
