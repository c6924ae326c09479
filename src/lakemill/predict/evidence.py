"""What is known of one of several models: shares, time and answers, each with its interval or its counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from lakemill.pipelines.intervals import interval
from lakemill_udfs.errors import ConfigError

MOST_PAIRS = 10  # of answers that are told
MOST_LABELS = 30


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

    def to_dict(self) -> dict[str, object]:
        """Return its JSON form."""
        low, high = self.interval
        return {"count": self.count, "rows": self.rows, "low": low, "high": high}


@dataclass(frozen=True)
class Speed:
    """How long a model takes, alone and in one task.

    Args:
        nanoseconds: For all of ``rows``.
        rows: That it scored.
        batches: That they came in; they are what differs by chance.
        interval: 95 % of nanoseconds a row, by the bootstrap over batches; None for a single batch.
    """

    nanoseconds: int
    rows: int
    batches: int
    interval: tuple[float, float] | None

    @property
    def rows_per_second(self) -> float:
        """Rows a second; 0 where nothing was measured."""
        return self.rows / self.nanoseconds * 1e9 if self.nanoseconds else 0.0

    @property
    def rows_per_second_interval(self) -> tuple[float, float]:
        """Its 95 % interval; the value itself where there is none."""
        if self.interval is None or not self.interval[0]:
            return self.rows_per_second, self.rows_per_second
        return 1e9 / self.interval[1], 1e9 / self.interval[0]

    @property
    def latency(self) -> str:
        """Milliseconds a row, as a text."""
        if not self.nanoseconds:
            return "not measured"
        mean = self.nanoseconds / self.rows / 1e6
        if self.interval is None:
            return f"{mean:.3g} ms a row (one batch, so no interval)"
        low, high = (value / 1e6 for value in self.interval)
        return f"{mean:.3g} ms a row ({low:.3g} to {high:.3g}; {self.batches:,} batches)"

    @property
    def pace(self) -> str:
        """Rows a second, as a text."""
        low, high = self.rows_per_second_interval
        between = f" ({low:,.0f} to {high:,.0f})" if self.interval is not None else ""
        return f"{self.rows_per_second:,.0f} rows/s alone{between}"

    def to_dict(self) -> dict[str, object]:
        """Return its JSON form."""
        low, high = self.rows_per_second_interval
        rate: dict[str, object] = {"rows_per_second": self.rows_per_second, "low": low, "high": high}
        return rate | {"nanoseconds": self.nanoseconds, "rows": self.rows, "batches": self.batches}


@dataclass(frozen=True)
class Difference:
    """A row that a challenger answers otherwise than the champion.

    Args:
        key: Its key columns as one text.
        champion: The champion's answer.
        challenger: The challenger's.
        truth: The carried label; None without one.
        size: How much they differ: of labels the mean of both probabilities, of class scores half the sum of their
            distances (total variation), of numbers their distance.
    """

    key: str
    champion: str
    challenger: str
    truth: str | None
    size: float


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
        by_label: The same for the rows of each label, the most frequent ones.
        agreement: Rows where a shadow's answer is the champion's; None for others.
        answers: The champion's and the shadow's answer, and rows, most frequent first.
        differences: Rows where they differ most.
        speed: How long it takes.
    """

    role: str
    name: str
    version: str | None
    sha256: str
    rows: int
    errors: Share
    correct: Share | None
    by_label: tuple[tuple[str, Share], ...]
    agreement: Share | None
    answers: tuple[tuple[str, str, int], ...]
    differences: tuple[Difference, ...]
    speed: Speed

    @property
    def rows_per_second(self) -> float:
        """Rows a second of the model alone, in one task."""
        return self.speed.rows_per_second

    @property
    def pairs(self) -> tuple[tuple[str, str, int], ...]:
        """The most frequent unequal ones of ``answers``."""
        return tuple(one for one in self.answers if one[0] != one[1])[:MOST_PAIRS]

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.name}, " + (f"version {self.version}" if self.version else f"sha256 {self.sha256[:12]}")

    def lines(self) -> Iterator[str]:
        """Yield it as lines of text."""
        yield f"{self.role}: {self.title}: {self.rows:,} rows"
        yield f"  time       {self.speed.latency}, {self.speed.pace}"
        yield f"  errors     {self.errors}"
        if self.correct is not None:
            yield f"  correct    {self.correct}"
            for label, share in self.by_label:
                yield f"    label {label}: {share}"
        if self.agreement is not None:
            yield f"  agreement  {self.agreement}"
        for ours, theirs, rows in self.pairs:
            yield f"    champion {ours}, {self.role} {theirs}: {rows:,} rows"
        if self.differences:
            yield "  differ most"
        for one in self.differences:
            known = "" if one.truth is None else f", label {one.truth}"
            yield f"    {one.key}: champion {one.champion}, {self.role} {one.challenger}{known} ({one.size:.3g})"

    def to_dict(self) -> dict[str, object]:
        """Return its JSON form."""
        shares = {name: getattr(self, name) for name in ("errors", "correct", "agreement")}
        return (
            asdict(self)
            | {name: share and share.to_dict() for name, share in shares.items()}
            | {"by_label": {label: share.to_dict() for label, share in self.by_label}, "speed": self.speed.to_dict()}
            | {"rows_per_second": self.rows_per_second}
        )


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
