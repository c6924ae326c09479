"""``TransformSpec``: a function of the user's between the table's columns and the tensors, under petastorm's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.callables import asks_for_dict
from lakemill_udfs.tensors.spec import TensorSpec

Edit = tuple[Any, ...]
"""``(name, numpy dtype, shape, is_nullable)``."""


@dataclass(frozen=True)
class TransformSpec:
    """What is made of the columns.

    Args:
        func: Takes a ``pandas.DataFrame`` of one batch's rows and returns one with as many rows. With its first
            argument annotated as a ``dict``, it takes and returns arrays by name, rows first. None makes nothing of
            them.
        edit_fields: ``(name, numpy dtype, shape, is_nullable)`` of each column that ``func`` makes or changes.
        removed_fields: Columns that are left out afterwards.
        selected_fields: The columns that are left afterwards, in order; not together with ``removed_fields``.

    Raises:
        ConfigError: ``TRAINING_TRANSFORM`` if the arguments do not go together.
    """

    func: Callable[[Any], Any] | None = None
    edit_fields: Sequence[Edit] | None = None
    removed_fields: Sequence[str] | None = None
    selected_fields: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.removed_fields is not None and self.selected_fields is not None:
            raise ConfigError("TRAINING_TRANSFORM", "'removed_fields' and 'selected_fields' exclude each other.")
        _ = self.edits

    @property
    def edits(self) -> dict[str, TensorSpec]:
        """The tensors that ``func`` makes."""
        return {str(edit[0]): _spec(edit) for edit in self.edit_fields or ()}

    @property
    def takes_arrays(self) -> bool:
        """Whether ``func`` takes a dict of arrays; else a DataFrame, as with petastorm."""
        return self.func is not None and asks_for_dict(self.func)

    def names(self, given: Sequence[str]) -> list[str]:
        """Return the columns that are left of those given and made.

        Raises:
            ConfigError: ``TRAINING_FIELD`` for one that there is not.
        """
        present = list(dict.fromkeys([*given, *self.edits]))
        for name in (*(self.selected_fields or ()), *(self.removed_fields or ())):
            if name not in present:
                raise ConfigError(
                    "TRAINING_FIELD",
                    f"the transform names '{name}', which is no column; there are: {', '.join(present)}.",
                    hint="columns that func makes are declared in edit_fields.",
                )
        if self.selected_fields is not None:
            return list(self.selected_fields)
        return [name for name in present if name not in (self.removed_fields or ())]


def _spec(edit: Edit) -> TensorSpec:
    try:
        name, dtype, shape, is_nullable = edit
        kind = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "TRAINING_TRANSFORM",
            f"an entry of edit_fields is (name, numpy dtype, shape, is_nullable); got {len(edit)} values.",
            hint="('image', np.float32, (3, 224, 224), False)",
        ) from error
    return TensorSpec(str(name), "string" if kind.kind == "U" else kind.name, tuple(shape), bool(is_nullable))
