"""Whether the models of one step go together: what they give lines up, and the key is one that can be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from lakemill_udfs.errors import ModelError, TableError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import TrafficStep
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep
from lakemill_udfs.tensors.spec import Kind, TensorSpec

Named = tuple[tuple[TensorSpec, str], ...]
"""Outputs, and the name that each gets."""

KEY_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "string")
KEY_TYPES = ("binary", "large_binary", "date32[day]", "large_string", "string_view")


class HasOutputs(Protocol):
    """Connections of one model."""

    @property
    def outputs(self) -> Named:
        """Its outputs."""
        ...


def require_key(column: str, table: Mapping[str, Kind]) -> None:
    """Look whether a column can say where a row goes: its text is then the same on every engine.

    Raises:
        TableError: ``COLUMN_MISSING``, or ``ROUTE_KEY_TYPE`` for floats, times and what holds several values.
    """
    if column not in table:
        raise TableError(
            "COLUMN_MISSING",
            f"the column '{column}' says which model a row goes to; the table has: {', '.join(table)}.",
            hint="key: <a column that tells rows apart>",
        )
    kind = table[column]
    is_key = not kind.shape and kind.dtype in KEY_DTYPES if isinstance(kind, TensorSpec) else kind in KEY_TYPES
    if not is_key:
        raise TableError(
            "ROUTE_KEY_TYPE",
            f"the column '{column}' says which model a row goes to, so it holds whole numbers, texts, bytes, booleans "
            f"or dates; it holds {kind}.",
        )


def outputs_of(step: TrafficStep, members: Sequence[HasOutputs]) -> Named:
    """Return what a step of several models gives.

    Raises:
        ModelError: ``OUTPUTS_DIFFER`` if its models' outputs do not line up, both shown; ``ENSEMBLE_COMBINE`` for what
            has no mean or no vote.
    """
    names = list(step.members)
    if isinstance(step, KeyedStep):  # see require_alike
        return _named(members[0])
    if isinstance(step, ShadowStep):
        return _named(members[0])
    if isinstance(step, EnsembleStep) and step.combine == "each":
        found = [(name, spec) for name, one in zip(names, members, strict=True) for spec, _ in _named(one)]
        renamed = [replace(spec, name=f"{name}_{spec.name}") for name, spec in found]
        return tuple((spec, spec.name) for spec in renamed)
    first = _named(members[0])
    for name, one in zip(names[1:], members[1:], strict=True):
        _require_same(names[0], first, name, _named(one))
    if isinstance(step, EnsembleStep):
        for spec, _ in first:
            _require_combined(step.combine, spec)
    return first


def require_alike(names: Sequence[str], models: Sequence[ModelSpec]) -> None:
    """Look whether models that one step calls in turn take and give the same.

    Raises:
        ModelError: ``MODELS_DIFFER``, with both.
    """
    for name, model in zip(names, models, strict=True):
        if (model.inputs, model.outputs) != (models[0].inputs, models[0].outputs):
            shown = [
                f"'{one.name}' takes {', '.join(map(str, one.inputs))} and gives {', '.join(map(str, one.outputs))}"
                for one in (models[0], model)
            ]
            raise ModelError(
                "MODELS_DIFFER",
                f"the models of all keys take and give the same; that of '{name}' does not: {'; '.join(shown)}.",
                hint="leave its key out with a 'table', or train it alike.",
            )


def _named(member: HasOutputs) -> Named:
    return tuple((replace(spec, name=name), name) for spec, name in member.outputs)


def _require_same(first_name: str, first: Named, name: str, other: Named) -> None:
    mine, theirs = ({spec.name: spec for spec, _ in one} for one in (first, other))
    alike = mine.keys() == theirs.keys() and all(
        (spec.dtype, spec.shape) == (theirs[key].dtype, theirs[key].shape) for key, spec in mine.items()
    )
    if not alike:
        raise ModelError(
            "OUTPUTS_DIFFER",
            "the models' outputs do not line up: "
            + "; ".join(
                f"{who}: {', '.join(str(spec) for spec, _ in specs)}"
                for who, specs in ((first_name, first), (name, other))
            )
            + ".",
            hint="rename with outputs: {<the model's name>: <the common name>}.",
        )


def _require_combined(combine: str, spec: TensorSpec) -> None:
    is_number = spec.dtype.startswith("float")
    is_label = not spec.shape and (spec.dtype in ("string", "bool") or "int" in spec.dtype)
    if (combine == "mean" and not (is_number and spec.is_fixed)) or (combine == "vote" and not is_label):
        wanted = "floats of a fixed shape" if combine == "mean" else "single whole numbers, texts or booleans"
        raise ModelError(
            "ENSEMBLE_COMBINE",
            f"{combine} is of {wanted}; the models give {spec}.",
            hint="combine: each, and a Python step, or combine: module:function.",
        )
