"""What a report shows, as plain values: gathered by ``report_data``, laid out by ``report``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Totals:
    """Counts of a predictions table.

    Args:
        rows: Rows in the table.
        errors: Rows without a result.
        flagged: Rows that failed a check.
        judged: Rows that have both a result and a known truth.
        right: Of those, the ones where they are equal.
        first: When the first row was scored (UTC); None for an empty table.
        last: When the last row was scored (UTC).
    """

    rows: int
    errors: int = 0
    flagged: int = 0
    judged: int = 0
    right: int = 0
    first: datetime | None = None
    last: datetime | None = None

    @property
    def scored(self) -> int:
        """Rows with a result."""
        return self.rows - self.errors

    @property
    def accuracy(self) -> float | None:
        """Share of right results, 0..1; None where no truth is known."""
        return self.right / self.judged if self.judged else None


@dataclass(frozen=True)
class Card:
    """One row's prediction, to be shown beside its image.

    Args:
        key: The row's key, its parts joined.
        predicted: The label.
        truth: The carried label, if there is one.
        score: The label's probability, 0..1, if the pipeline gives one.
        thumbnail: ``data:`` URI of a small image, if the source has one that decodes.
    """

    key: str
    predicted: str
    truth: str | None = None
    score: float | None = None
    thumbnail: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether the truth is known and differs."""
        return self.truth is not None and self.truth != self.predicted

    @property
    def short_key(self) -> str:
        """The last part of a path, or the whole key."""
        return self.key.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Count:
    """Rows of one kind that have the same one or two values.

    Args:
        one: What they are counted by.
        two: The second value, for kinds that have two.
        rows: How many.
        wrong: How many of them have another truth than label.
        message: The error's message of one of them.
        first: The smallest key.
        last: The largest key.
    """

    one: str
    two: str | None
    rows: int
    wrong: int
    message: str | None
    first: str
    last: str


@dataclass(frozen=True)
class Pair:
    """How many rows of one true class got one label."""

    truth: str
    predicted: str
    rows: int


@dataclass(frozen=True)
class ClassCount:
    """One class: rows that got its label, and where the truth is known rows that truly have it and the overlap."""

    label: str
    predicted: int
    true: int | None = None
    right: int = 0

    @property
    def recall(self) -> float | None:
        """Of the rows that truly have the label, the share that got it."""
        return self.right / self.true if self.true else None

    @property
    def precision(self) -> float | None:
        """Of the rows that got the label, the share that truly have it."""
        return self.right / self.predicted if self.predicted and self.true is not None else None


@dataclass(frozen=True)
class Confusion:
    """True class against predicted label.

    Args:
        labels: The classes, in natural order.
        counts: Rows, true class first; as many lists as labels.
        classes: One a label.
        pairs: The most frequent mistakes, most frequent first.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    classes: tuple[ClassCount, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class ErrorGroup:
    """Rows that failed in the same way; the message is that of one of them, and messages hold no row data."""

    stage: str
    code: str
    message: str
    rows: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """Values of one numeric output in equal bins.

    Args:
        name: Field of ``out``.
        low: Smallest finite value.
        high: Largest finite value.
        mean: Mean of the finite values.
        counts: Rows a bin, from ``low`` to ``high``.
        not_finite: Rows with NaN or infinity.
        mean_absolute_error: Against the carried column of the same name, in its unit.
    """

    name: str
    low: float
    high: float
    mean: float
    counts: tuple[int, ...]
    not_finite: int = 0
    mean_absolute_error: float | None = None


@dataclass(frozen=True)
class Bin:
    """Rows whose score lies between ``low`` and ``high``, and how many of them are wrong."""

    low: float
    high: float
    rows: int
    wrong: int


@dataclass(frozen=True)
class Named:
    """A name with a number: rows that a check flagged, seconds of a stage."""

    name: str
    value: float


@dataclass(frozen=True)
class ModelUse:
    """A model version of one pipeline version, and the rows that it scored."""

    pipeline: str | None
    pipeline_version: str | None
    model: str | None
    version: str | None
    sha256: str | None
    rows: int


@dataclass(frozen=True)
class Differing:
    """A row that two models answer otherwise, to be shown beside its image.

    Args:
        key: The row's key, its parts joined.
        champion: The champion's answer.
        challenger: The challenger's.
        truth: The carried label; None without one.
        thumbnail: ``data:`` URI of a small image, if the source has one that decodes.
    """

    key: str
    champion: str
    challenger: str
    truth: str | None = None
    thumbnail: str | None = None

    @property
    def short_key(self) -> str:
        """The last part of a path, or the whole key."""
        return self.key.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Compared:
    """What is known of one of several models; each share as a text with its interval and counts.

    Args:
        role: In the pipeline.
        model: Registered name and version.
        rows: That it scored.
        latency: Time of a row.
        pace: Rows a second, of the model alone.
        errors: Share of rows without an answer.
        correct: Share of rows with the carried label; empty without one.
        agreement: Share of rows with the champion's answer; empty for others than shadows.
        by_label: ``correct`` of the rows of each label.
        confusion: The champion's answers in rows, the model's in columns; None for others than shadows.
        differences: Rows where they differ most.
    """

    role: str
    model: str
    rows: int
    latency: str
    pace: str
    errors: str
    correct: str = ""
    agreement: str = ""
    by_label: tuple[tuple[str, str], ...] = ()
    confusion: Confusion | None = None
    differences: tuple[Differing, ...] = ()


@dataclass(frozen=True)
class Run:
    """One row of the run table; ``stages`` has the seconds of each, summed over tasks that worked side by side."""

    started: datetime
    mode: str
    source_version: int | None
    rows: int
    errors: int
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything on the page; an empty part leaves its section out."""

    title: str
    table: str
    source: str | None
    totals: Totals
    sample: tuple[Card, ...] = ()
    unsure: tuple[Card, ...] = ()
    wrong: tuple[Card, ...] = ()
    confusion: Confusion | None = None
    labels: tuple[ClassCount, ...] = ()
    scores: tuple[Bin, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    errors: tuple[ErrorGroup, ...] = ()
    checks: tuple[Named, ...] = ()
    runs: tuple[Run, ...] = ()
    models: tuple[ModelUse, ...] = ()
    compared: tuple[Compared, ...] = ()

    @property
    def stages(self) -> tuple[Named, ...]:
        """Seconds a stage, summed over the runs; stages that took no time are left out."""
        names = dict.fromkeys(name for run in self.runs for name in run.stages)
        sums = {name: sum(run.stages.get(name, 0.0) for run in self.runs) for name in names}
        return tuple(Named(name, seconds) for name, seconds in sums.items() if seconds)
