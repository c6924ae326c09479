"""What a predictions table says of the models that made it: agreement, errors, accuracy and time, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, opened
from lakemill.engines.schemas import fields_of
from lakemill.engines.sql import all_equal
from lakemill.pipelines.intervals import interval
from lakemill.pipelines.resolving import Resolved
from lakemill.predict.run import own_rows
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import model_steps
from lakemill_udfs.steps.traffic import ShadowStep

MOST_PAIRS = 10  # of answers that are shown
TRUTH = "label"


@dataclass(frozen=True)
class Share:
    """A share that was seen: never a bare percentage.

    Args:
        count: Rows for which it is so.
        rows: Of these.
    """

    count: int
    rows: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Clopper and Pearson."""
        return interval(self.count, self.rows) if self.rows else (0.0, 1.0)

    def __str__(self) -> str:
        if not self.rows:
            return "no rows"
        low, high = self.interval
        return f"{self.count / self.rows:.2%} ({low:.2%} to {high:.2%}; {self.count:,} of {self.rows:,})"

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form."""
        low, high = self.interval
        return {"count": self.count, "rows": self.rows, "low": low, "high": high}


@dataclass(frozen=True)
class ModelEvidence:
    """What is known of one model.

    Args:
        role: In the pipeline: ``champion``, ``control``, a challenger's name.
        name: Registered name, or the file's.
        version: Registered version.
        sha256: Of its files.
        rows: Rows that it scored.
        errors: Rows of these for which it has no answer.
        correct: Rows where its answer is the carried column ``label``; None without one.
        agreement: Rows where a shadow's answer is the champion's; None for others.
        pairs: The champion's and the shadow's answer where they differ, and rows, most frequent first.
        nanoseconds: That it took.
    """

    role: str
    name: str
    version: str | None
    sha256: str
    rows: int
    errors: Share
    correct: Share | None
    agreement: Share | None
    pairs: tuple[tuple[str, str, int], ...]
    nanoseconds: int

    @property
    def rows_per_second(self) -> float:
        """Rows a second of the model alone, in one task."""
        return self.rows / self.nanoseconds * 1e9 if self.nanoseconds else 0.0

    def lines(self) -> Iterator[str]:
        """Yield it as lines of text."""
        version = f"version {self.version}" if self.version else f"sha256 {self.sha256[:12]}"
        yield f"{self.role}: {self.name}, {version}: {self.rows:,} rows, {self.rows_per_second:,.0f} rows/s alone"
        yield f"  errors     {self.errors}"
        if self.correct is not None:
            yield f"  correct    {self.correct}"
        if self.agreement is not None:
            yield f"  agreement  {self.agreement}"
        for ours, theirs, rows in self.pairs:
            yield f"    champion {ours}, {self.role} {theirs}: {rows:,} rows"

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form."""
        shares = {name: getattr(self, name) for name in ("errors", "correct", "agreement")}
        return (
            asdict(self)
            | {name: share and share.to_dict() for name, share in shares.items()}
            | {"rows_per_second": self.rows_per_second}
        )


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
    fields = fields_of(snapshot.schema)
    shadows = [f"out_{role}" for role, _, _, is_shadow in _models(resolved) if is_shadow]
    answer = next(filter(None, (_answer(name, fields) for name in fields if name.startswith("out."))), None)
    names = [name for name in (answer, *(f"{one}.{_inner(answer)}" for one in shadows)) if name in fields]
    names += [f"{one}.error" for one in shadows] + [name for name in (TRUTH,) if name in fields]
    rows = engine.rows(snapshot).where(own_rows(config)).where(all_equal({"metadata.pipeline_version": version}))
    table = rows.select(["error.code", "metadata.models", "metadata.elapsed_ns", *names]).to_arrow()
    if not table.num_rows:
        raise ConfigError(
            "EVIDENCE_NONE",
            f"no row of '{config.output.table}' was scored by the models that the pipeline names now.",
            hint="run the job first; after an alias moved or a model changed, the evidence begins anew.",
        )
    return tuple(_Reader(table, answer).model(*one) for one in _models(resolved))


def _answer(name: str, fields: dict[str, pa.Field]) -> str | None:
    """Return the field if models can be compared by it: a label, or class scores."""
    kind = fields[name].type
    is_scores = pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)
    return name if pa.types.is_string(kind) or pa.types.is_integer(kind) or is_scores else None


def _inner(answer: str | None) -> str:
    return "" if answer is None else answer.removeprefix("out.")


def _models(resolved: Resolved) -> Iterator[tuple[str, ModelSpec, int, bool]]:
    """Yield each model's role, the model, the place of its time, and whether its answers stand beside the others'."""
    models, entry = iter(resolved.models), 0
    for step in resolved.pipeline.steps:
        own = model_steps(step)
        roles = list(getattr(step, "members", ["model"]))
        for at, (role, _) in enumerate(zip(roles, own, strict=False)):
            yield role, next(models), entry + at, isinstance(step, ShadowStep) and at > 0
        entry += max(1, len(own))


class _Reader:
    """Reads a table of evidence.

    Args:
        table: One row for each prediction.
        answer: The field that models are compared by.
    """

    def __init__(self, table: pa.Table, answer: str | None) -> None:
        self._table, self._answer = table, answer
        lists = table["metadata.models"].combine_chunks()
        self._parents = pc.list_parent_indices(lists).to_numpy()
        self._sha256 = np.array(pc.struct_field(lists.flatten(), "sha256").to_pylist())
        times = table["metadata.elapsed_ns"].combine_chunks()
        self._times = times.flatten().to_numpy().reshape(table.num_rows, -1)
        self._failed = table["error.code"].is_valid().to_numpy()
        self._own = None if answer is None else _texts(table[answer])
        self._truth = _texts(table[TRUTH]) if TRUTH in table.column_names else None

    def model(self, role: str, model: ModelSpec, entry: int, is_shadow: bool) -> ModelEvidence:
        scored = np.zeros(self._table.num_rows, dtype=bool)
        scored[self._parents[self._sha256 == model.sha256]] = True
        failed, answers = self._failed, self._own
        if is_shadow:
            failed = pc.struct_field(self._table[f"out_{role}.error"], "code").is_valid().to_numpy()
            inner = f"out_{role}.{_inner(self._answer)}"
            answers = _texts(self._table[inner]) if inner in self._table.column_names else None
        rows = int(scored.sum())
        good = scored & ~failed
        return ModelEvidence(
            role,
            model.name,
            model.version,
            model.sha256,
            rows,
            Share(int((scored & failed).sum()), rows),
            self._correct(answers, good),
            self._agreement(answers, good) if is_shadow else None,
            self._pairs(answers, good) if is_shadow else (),
            int(self._times[:, entry].sum()),
        )

    def _correct(self, answers: NDArray[Any] | None, good: NDArray[np.bool_]) -> Share | None:
        if answers is None or self._truth is None:
            return None
        known = good & (self._truth != None)  # noqa: E711 -- element by element
        return Share(int((answers[known] == self._truth[known]).sum()), int(known.sum()))

    def _agreement(self, answers: NDArray[Any] | None, good: NDArray[np.bool_]) -> Share | None:
        if answers is None or self._own is None:
            return None
        both = good & ~self._failed
        return Share(int((answers[both] == self._own[both]).sum()), int(both.sum()))

    def _pairs(self, answers: NDArray[Any] | None, good: NDArray[np.bool_]) -> tuple[tuple[str, str, int], ...]:
        if answers is None or self._own is None:
            return ()
        unlike = good & ~self._failed & (answers != self._own)
        counted = Counter(zip(self._own[unlike].tolist(), answers[unlike].tolist(), strict=True))
        return tuple((ours, theirs, rows) for (ours, theirs), rows in counted.most_common(MOST_PAIRS))


def _texts(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return labels as texts, and class scores as the number of the best one; None where there is none."""
    values = column.to_pylist()
    found = np.empty(len(values), dtype=object)
    found[:] = [
        str(int(np.argmax(value))) if isinstance(value, list) else None if value is None else str(value)
        for value in values
    ]
    return found


def find(evidence: Sequence[ModelEvidence], name: str, version: str) -> ModelEvidence:
    """Return what is known of a registered model's version.

    Raises:
        ConfigError: ``EVIDENCE_NONE`` if the pipeline does not run it.
    """
    found = next((one for one in evidence if (one.name, one.version) == (name, version)), None)
    if found is None:
        there = ", ".join(f"{one.name} {one.version or one.sha256[:12]}" for one in evidence)
        raise ConfigError("EVIDENCE_NONE", f"the pipeline does not run '{name}' version {version}; it runs: {there}.")
    return found
