"""Steps of several models: traffic that is split between them, shadows, ensembles; declared like all other steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast

from lakemill_udfs.arguments import check_arguments
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.callables import IMPORT_PATH, as_import_path
from lakemill_udfs.steps.declared import FORBID, ModelStep, PythonStep

CONTROL = "control"
CHAMPION = "champion"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SUM_TOLERANCE = 1e-6
MANY = ("challengers", "models")
"""Arguments that are several models by name."""

BOUNDS = ("at_least", "below")


def _model(given: Any) -> Any:
    """Return a model that was given by its URI, or as a step's arguments."""
    if isinstance(given, Mapping):
        return ModelStep(**given)
    return given if isinstance(given, ModelStep) or given is None else ModelStep(given)


def set_models(step: Any, *names: str) -> None:
    """Make models of what a step's arguments of these names say."""
    for name in names:
        given = getattr(step, name)
        if name not in MANY:
            object.__setattr__(step, name, _model(given))
        elif isinstance(given, Mapping):  # anything else is refused as the argument that it is
            object.__setattr__(step, name, {str(key): _model(one) for key, one in given.items()})


def _check_names(code: str, names: Sequence[str], taken: str) -> None:
    wrong = [name for name in names if not NAME.fullmatch(name) or name == taken]
    if wrong:
        raise ConfigError(
            code,
            f"a model of several is named with letters, digits and _, and not '{taken}'; got '{wrong[0]}'.",
            hint="challengers: {newer: 'models:/digits/4'}",
        )


@dataclass(frozen=True)
class SplitStep:
    """Send each row to one of several models; a row with the same key goes to the same one, on every engine and run.

    Args:
        control: The model of the rows that go nowhere else: a URI, or a model step's arguments.
        challengers: The others by name.
        weights: With ``by: random``, the share of rows of each name, ``control`` included; they sum to 1. Equal shares
            if left out.
        by: ``random``: by a hash of the key. ``key``: by the key's value.
        key: Column or columns that the hash is of, or the column whose value is looked at; ``path`` by default.
        routes: With ``by: key``, for each challenger the values that are its own, or ``{at_least, below}``.
        salt: Changes which rows go where, for an experiment that is independent of another one.

    Raises:
        ConfigError: ``SPLIT_WEIGHTS``, ``SPLIT_ROUTES``, ``SPLIT_NAMES``, or ``SPLIT_STEP`` for a wrong type.
    """

    __pydantic_config__ = FORBID

    control: str | ModelStep
    challengers: Mapping[str, str | ModelStep]
    weights: Mapping[str, float] = field(default_factory=dict)
    by: Literal["random", "key"] = "random"
    key: str | tuple[str, ...] = "path"
    routes: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""

    def __post_init__(self) -> None:
        set_models(self, "control", "challengers")
        check_arguments(self, "SPLIT_STEP")
        _check_names("SPLIT_NAMES", [*self.challengers], CONTROL)
        if self.by == "random":
            self._check_weights()
        else:
            self._check_routes()

    def _check_weights(self) -> None:
        if self.routes:
            raise ConfigError("SPLIT_ROUTES", "'routes' go with by: key; got by: random.")
        unknown = sorted(set(self.weights) - set(self.members))
        if unknown:
            raise ConfigError(
                "SPLIT_WEIGHTS", f"there is no model '{unknown[0]}' to weigh; there are: {', '.join(self.members)}."
            )
        total = sum(self.weights.values())
        if self.weights and (abs(total - 1) > SUM_TOLERANCE or min(self.weights.values()) < 0):
            given = ", ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
            raise ConfigError(
                "SPLIT_WEIGHTS",
                f"the weights are 0 or more and sum to 1; got {given}, sum {total:g}.",
                hint="weights: {control: 0.9, newer: 0.1}",
            )

    def _check_routes(self) -> None:
        if self.weights or not isinstance(self.key, str):
            raise ConfigError("SPLIT_ROUTES", "by: key goes by the value of one column, with 'routes', not 'weights'.")
        if set(self.routes) != set(self.challengers):
            raise ConfigError(
                "SPLIT_ROUTES",
                f"each challenger ({', '.join(self.challengers)}) has a route; got {', '.join(self.routes) or 'none'}.",
                hint="routes: {newer: [DE, FR]}, or {newer: {at_least: 100, below: 200}}",
            )
        for name, route in self.routes.items():
            is_range = isinstance(route, Mapping) and route and set(route) <= set(BOUNDS)
            if not is_range and not (isinstance(route, list | tuple) and route):
                raise ConfigError(
                    "SPLIT_ROUTES", f"the route of '{name}' is a list of values, or a range {{at_least, below}}."
                )

    @property
    def members(self) -> dict[str, ModelStep]:
        """Its models by name, control first."""
        return {CONTROL: cast("ModelStep", self.control)} | cast("dict[str, ModelStep]", dict(self.challengers))

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of rows of each of ``members``."""
        names = list(self.members)
        return tuple(float(self.weights.get(name, 0.0)) if self.weights else 1 / len(names) for name in names)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that say where a row goes."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    def with_members(self, models: Sequence[ModelStep]) -> Self:
        """Return the step with other models, in the order of ``members``."""
        return replace(self, control=models[0], challengers=dict(zip(self.challengers, models[1:], strict=True)))


@dataclass(frozen=True)
class ShadowStep:
    """Score each row with a champion, whose result counts, and with challengers, whose results are only looked at.

    The champion's results go on to the next steps and to ``out``; each challenger's go through the same next steps
    by themselves, into ``out_<name>``, where ``error`` says why it has none. A challenger that fails fails no row.

    Args:
        champion: A URI, or a model step's arguments.
        challengers: The others by name.

    Raises:
        ConfigError: ``SHADOW_NAMES``, or ``SHADOW_STEP`` for a wrong type.
    """

    __pydantic_config__ = FORBID

    champion: str | ModelStep
    challengers: Mapping[str, str | ModelStep]

    def __post_init__(self) -> None:
        set_models(self, "champion", "challengers")
        check_arguments(self, "SHADOW_STEP")
        _check_names("SHADOW_NAMES", [*self.challengers], CHAMPION)

    @property
    def members(self) -> dict[str, ModelStep]:
        """Its models by name, the champion first."""
        return {CHAMPION: cast("ModelStep", self.champion)} | cast("dict[str, ModelStep]", dict(self.challengers))

    @property
    def key_columns(self) -> tuple[str, ...]:
        """None: every model gets every row."""
        return ()

    def with_members(self, models: Sequence[ModelStep]) -> Self:
        """Return the step with other models, in the order of ``members``."""
        return replace(self, champion=models[0], challengers=dict(zip(self.challengers, models[1:], strict=True)))


@dataclass(frozen=True)
class EnsembleStep:
    """Score each row with several models and make one result of theirs.

    Args:
        models: By name; two at least. A row for which one fails has that model's error.
        combine: ``mean`` of numbers; ``vote``: the value that most models give, of single whole numbers, texts or
            booleans, the first model's among equals; ``each`` leaves them side by side as ``<model>_<output>``; or
            ``module:function``, which gets these by name.
        outputs: Of the function: ``{name: {dtype, shape}}``.

    Raises:
        ConfigError: ``ENSEMBLE_NAMES``, ``ENSEMBLE_COMBINE``, or ``ENSEMBLE_STEP`` for a wrong type.
    """

    __pydantic_config__ = FORBID

    models: Mapping[str, str | ModelStep]
    combine: Any = "mean"  # str or a callable, for which pydantic has no JSON schema
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_models(self, "models")
        object.__setattr__(self, "combine", as_import_path(self.combine))
        check_arguments(self, "ENSEMBLE_STEP")
        _check_names("ENSEMBLE_NAMES", [*self.models], "")
        if len(self.models) < 2:
            raise ConfigError("ENSEMBLE_NAMES", f"an ensemble is of two models at least; got {len(self.models)}.")
        if self.has_function != bool(self.outputs):
            raise ConfigError(
                "ENSEMBLE_COMBINE",
                "'outputs' declare what a function gives, and only that; mean and vote give what the models do.",
                hint="combine: voting:weighted, outputs: {score: {dtype: float32}}",
            )
        if not self.has_function and self.combine not in ("mean", "vote", "each"):
            raise ConfigError(
                "ENSEMBLE_COMBINE", f"'combine' is mean, vote, each or module:function; got '{self.combine}'."
            )

    @property
    def has_function(self) -> bool:
        """Whether a function of the user's combines."""
        return callable(self.combine) or IMPORT_PATH.fullmatch(str(self.combine)) is not None

    @property
    def members(self) -> dict[str, ModelStep]:
        """Its models by name."""
        return cast("dict[str, ModelStep]", dict(self.models))

    @property
    def key_columns(self) -> tuple[str, ...]:
        """None: every model gets every row."""
        return ()

    def with_members(self, models: Sequence[ModelStep]) -> Self:
        """Return the step with other models, in the order of ``members``."""
        return replace(self, models=dict(zip(self.models, models, strict=True)))

    @property
    def parts(self) -> tuple[EnsembleStep | PythonStep, ...]:
        """The steps that it stands for: where a function combines, one that leaves results side by side, and its."""
        if not self.has_function:
            return (self,)
        return replace(self, combine="each", outputs={}), PythonStep(self.combine, self.outputs)
