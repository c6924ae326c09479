"""Pipelines built step by step, under the names that users of other systems know; each returns a new pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from lakemill_udfs import pipeline as declared
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.steps.traffic import CONTROL, ShadowStep, SplitStep

Model = str | ModelStep
"""A model: its URI, or a step."""


class StepByStep(declared.Pipeline):
    """Adds and replaces steps of one or several models."""

    def add_model_step(self, model: Model) -> Self:
        """Return the pipeline with one more step, a model."""
        return self._with(len(self.steps), as_model(model))

    def replace_with_model_step(self, index: int, model: Model) -> Self:
        """Return the pipeline with a model in place of the step at ``index``.

        Raises:
            ConfigError: ``PIPELINE_STEP`` if there is no such step.
        """
        return self._with(self._at(index), as_model(model))

    def add_random_split(
        self, weighted: Sequence[tuple[float, Model]], hash_key: str | Sequence[str] = "path", salt: str = ""
    ) -> Self:
        """Return the pipeline with one more step: rows are split by a hash of their key.

        Args:
            weighted: Weight and model, the control first; weights are relative to their sum.
            hash_key: Column or columns that tell rows apart; a row with the same key goes to the same model.
            salt: As in ``SplitStep``.

        Raises:
            ConfigError: ``SPLIT_WEIGHTS``.
        """
        return self._with(len(self.steps), _random_split(weighted, hash_key, salt))

    def replace_with_random_split(
        self,
        index: int,
        weighted: Sequence[tuple[float, Model]],
        hash_key: str | Sequence[str] = "path",
        salt: str = "",
    ) -> Self:
        """Return the pipeline with a random split in place of the step at ``index``; see ``add_random_split``.

        Raises:
            ConfigError: ``SPLIT_WEIGHTS``, or ``PIPELINE_STEP`` if there is no such step.
        """
        return self._with(self._at(index), _random_split(weighted, hash_key, salt))

    def add_key_split(self, default: Model, meta_key: str, options: Mapping[Any, Model]) -> Self:
        """Return the pipeline with one more step: rows are routed by the value of a column.

        Args:
            default: The model of all other rows.
            meta_key: The column.
            options: The model of each value.
        """
        return self._with(len(self.steps), _key_split(default, meta_key, options))

    def replace_with_key_split(self, index: int, default: Model, meta_key: str, options: Mapping[Any, Model]) -> Self:
        """Return the pipeline with a key split in place of the step at ``index``; see ``add_key_split``.

        Raises:
            ConfigError: ``PIPELINE_STEP`` if there is no such step.
        """
        return self._with(self._at(index), _key_split(default, meta_key, options))

    def add_shadow_deploy(self, champion: Model, challengers: Mapping[str, Model] | Sequence[Model]) -> Self:
        """Return the pipeline with one more step: a champion, and challengers whose results stand beside its own.

        Args:
            champion: Its results are ``out``.
            challengers: By name, or a list, which are named ``challenger_1`` and so on; their results are
                ``out_<name>``.
        """
        return self._with(len(self.steps), ShadowStep(champion, _named(challengers)))

    def replace_with_shadow_deploy(
        self, index: int, champion: Model, challengers: Mapping[str, Model] | Sequence[Model]
    ) -> Self:
        """Return the pipeline with a shadow in place of the step at ``index``; see ``add_shadow_deploy``.

        Raises:
            ConfigError: ``PIPELINE_STEP`` if there is no such step.
        """
        return self._with(self._at(index), ShadowStep(champion, _named(challengers)))

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self.steps):
            raise ConfigError("PIPELINE_STEP", f"the pipeline has steps 0 to {len(self.steps) - 1}; got {index}.")
        return index

    def _with(self, index: int, step: Step) -> Self:
        return replace(self, steps=(*self.steps[:index], step, *self.steps[index + 1 :]))


def as_model(model: Model) -> ModelStep:
    """Return a model's step."""
    return model if isinstance(model, ModelStep) else ModelStep(model)


def _named(models: Mapping[str, Model] | Sequence[Model]) -> dict[str, Model]:
    if isinstance(models, Mapping):
        return dict(models)
    return {f"challenger_{number}": model for number, model in enumerate(models, 1)}


def _random_split(weighted: Sequence[tuple[float, Model]], key: str | Sequence[str], salt: str) -> SplitStep:
    weights, models = [weight for weight, _ in weighted], [model for _, model in weighted]
    total = sum(weights)
    if len(models) < 2 or min(weights) < 0 or total <= 0:
        raise ConfigError(
            "SPLIT_WEIGHTS", f"a split is of two models at least, with weights of 0 or more; got {weights}."
        )
    named = _named(models[1:])
    shares = dict(zip((CONTROL, *named), (weight / total for weight in weights), strict=True))
    return SplitStep(models[0], named, shares, key=key if isinstance(key, str) else tuple(key), salt=salt)


def _key_split(default: Model, column: str, options: Mapping[Any, Model]) -> SplitStep:
    named = _named(list(options.values()))
    routes = {name: [value] for name, value in zip(named, options, strict=True)}
    return SplitStep(default, named, by="key", key=column, routes=routes)
