"""A cascade: a small model answers what it is sure of, a large one the rest; declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, cast

from lakemill_udfs.arguments import check_arguments
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import FORBID, Check, ModelStep
from lakemill_udfs.steps.traffic import set_models

FIRST, THEN = "first", "then"
TARGET = {"agreement": 0.99, "confidence": 0.95}
AUTO = "auto"


@dataclass(frozen=True)
class CascadeStep:
    """Score each row with a first model and, unless that is sure enough, with a second one, whose answer then counts.

    Rows that go on are gathered into full batches; a row for which the first model fails goes on too.

    Args:
        first: The small model.
        then: The large one; it gives the same outputs.
        unless: When the first model's answer stands: SQL over its outputs, and over ``out.confidence`` where ``score``
            is known: ``out.probability >= 0.9``. ``auto``: a threshold of the confidence that is learnt on a sample, so
            that the target holds.
        target: With ``auto``: in at least this share of all rows the answer is the second model's (``agreement``), with
            this ``confidence``.
        score: The first model's output that says how sure it is: one number, or class scores, of which the highest
            counts. Not needed where only one output is a float.
        softmax: Turn class scores into probabilities first.
        sample_rows: Rows that a threshold is learnt on.
        threshold: What was learnt; set by Lakemill.

    Raises:
        ConfigError: ``CASCADE_STEP`` if the arguments do not go together.
    """

    __pydantic_config__ = FORBID

    first: str | ModelStep
    then: str | ModelStep
    unless: str = AUTO
    target: Mapping[str, float] = field(default_factory=lambda: dict(TARGET))
    score: str | None = None
    softmax: bool = False
    sample_rows: int = 2000
    threshold: float | None = None

    def __post_init__(self) -> None:
        set_models(self, "first", "then")
        object.__setattr__(self, "target", TARGET | dict(self.target))
        check_arguments(self, "CASCADE_STEP")
        if set(self.target) != set(TARGET) or not all(0 < value < 1 for value in self.target.values()):
            raise ConfigError(
                "CASCADE_STEP",
                "'target' is an agreement and a confidence, each between 0 and 1.",
                hint="target: {agreement: 0.99, confidence: 0.95}",
            )
        if self.sample_rows < 1:
            raise ConfigError("CASCADE_STEP", f"'sample_rows' must be 1 or more; got {self.sample_rows}.")

    @property
    def members(self) -> dict[str, ModelStep]:
        """Its two models."""
        return {FIRST: cast("ModelStep", self.first), THEN: cast("ModelStep", self.then)}

    @property
    def key_columns(self) -> tuple[str, ...]:
        """None: the first model's answer says where a row goes."""
        return ()

    @property
    def is_open(self) -> bool:
        """Whether its threshold has to be learnt first."""
        return self.unless == AUTO and self.threshold is None

    @property
    def condition(self) -> Check | None:
        """When the first model's answer stands, as a check is written; None where a threshold says it."""
        return None if self.unless == AUTO else Check("unless", self.unless)

    def with_members(self, models: Sequence[ModelStep]) -> Self:
        """Return the step with other models, in the order of ``members``."""
        return replace(self, first=models[0], then=models[1])
