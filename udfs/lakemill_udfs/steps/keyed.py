"""A model for each key: which model a row's key stands for, declared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

from lakemill_udfs.arguments import check_arguments
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import FORBID, ModelStep
from lakemill_udfs.steps.traffic import set_models

PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*)\}")
FALLBACK = "fallback"


@dataclass(frozen=True)
class KeyedStep:
    """Score each row with the model of its key; models are loaded where a key comes up, and dropped when memory ends.

    All of them have the same inputs and outputs. A row whose key has no model is an error, ``MODEL_KEY_UNKNOWN``, or
    the fallback's.

    Args:
        by: The column whose value says which model.
        uri: Where a key's model is, the column in braces: ``models:/demand-{store_id}@production``,
            ``models/{store_id}.onnx``. Which keys there are is looked up when the run starts.
        table: Or the URI of each key.
        fallback: The model of all other keys.
        memory_mib: MiB that a worker's models of this kind may take together, by the size of their files; the least
            recently used are dropped first.
        inputs: As in ``ModelStep``.
        outputs: As in ``ModelStep``.
        runtime: As in ``ModelStep``.
        options: As in ``ModelStep``.
        trust: As in ``ModelStep``.
        sha256: Of all models together: refuse any others.

    Raises:
        ConfigError: ``MODELS_STEP`` if the arguments do not go together.
    """

    __pydantic_config__ = FORBID

    by: str
    uri: str | None = None
    table: Mapping[Any, str] = field(default_factory=dict)
    fallback: str | ModelStep | None = None
    memory_mib: int = 1024
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    runtime: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False
    sha256: str | None = None

    def __post_init__(self) -> None:
        set_models(self, "fallback")
        object.__setattr__(self, "table", {_text(key): uri for key, uri in self.table.items()})
        check_arguments(self, "MODELS_STEP")
        if self.uri is None and not self.table:
            raise ConfigError(
                "MODELS_STEP",
                "a model a key needs 'uri', with the key in braces, or a 'table' of them.",
                hint="models: {by: store_id, uri: 'models:/demand-{store_id}@production'}",
            )
        if self.uri is not None and PLACEHOLDER.findall(self.uri) != [self.by]:
            raise ConfigError("MODELS_STEP", f"'uri' names the key once, as {{{self.by}}}; got '{self.uri}'.")
        if self.memory_mib < 1:
            raise ConfigError("MODELS_STEP", f"'memory_mib' must be 1 or more; got {self.memory_mib}.")

    @property
    def members(self) -> dict[str, ModelStep]:
        """The models by key, as far as they are known, then the fallback."""
        alike = ModelStep("", self.inputs, self.outputs, None, self.runtime, self.options, self.trust)
        known = {key: replace(alike, uri=uri) for key, uri in self.table.items()}
        last = {} if self.fallback is None else {FALLBACK: cast("ModelStep", self.fallback)}
        return known | last

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The column that says where a row goes."""
        return (self.by,)

    def with_members(self, models: Sequence[ModelStep]) -> Self:
        """Return the step with other models, in the order of ``members``."""
        table = {key: model.uri for key, model in zip(self.table, models, strict=False)}
        return replace(self, uri=None, table=table, fallback=None if self.fallback is None else models[-1])


def _text(key: Any) -> Any:
    if isinstance(key, bool):
        return str(key).lower()
    return str(key) if isinstance(key, int) else key
