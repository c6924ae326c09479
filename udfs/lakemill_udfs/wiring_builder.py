"""The state of connecting a pipeline's steps: what was made, what was read, which columns of the source that takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.tensors.column_inputs import InputColumn, input_column
from lakemill_udfs.tensors.spec import Kind, TensorSpec


@dataclass
class Builder:
    """What a pipeline has read and made so far, while its steps are connected."""

    table: Mapping[str, Kind]
    declared: Mapping[str, TensorSpec]
    made: dict[str, TensorSpec] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    columns: dict[str, InputColumn] = field(default_factory=dict)
    raw: dict[str, None] = field(default_factory=dict)
    problems: list[LakemillError] | None = None
    is_incomplete: bool = False

    def report(self, error: LakemillError) -> None:
        """Raise a problem, or keep it and go on; then a value that nothing makes may be one of a step that failed."""
        if self.problems is None:
            raise error
        self.problems.append(error)
        self.is_incomplete = True

    def fork(self) -> Builder:
        """Return one that goes on from here by itself; the columns that it reads are those of the pipeline."""
        return replace(self, made=dict(self.made), read=set(self.read))

    @property
    def leaves(self) -> list[str]:
        """What was made and not read."""
        return [name for name in self.made if name not in self.read]

    def feed(self, name: str, wanted: TensorSpec | None, who: str, also_read: Collection[str] = ()) -> str | None:
        """Mark ``name`` as read and return the dtype that it must be cast to, None if it fits."""
        if self.is_incomplete and name not in self.made and name not in self.table:
            return None
        try:
            return self._feed(name, wanted, who, also_read)
        except LakemillError as error:
            self.report(error)
            return None

    def _feed(self, name: str, wanted: TensorSpec | None, who: str, also_read: Collection[str]) -> str | None:
        if name in self.made:
            self.read.add(name)
            return _cast(self.made[name], wanted, who)
        if name not in self.table:
            raise ModelError(
                "MODEL_INPUT_MISSING",
                f"{who} needs input '{name}'; the table has: {', '.join(self.table)}"
                + (f"; earlier steps make: {', '.join(self.made)}." if self.made else "."),
                hint="name what feeds it: inputs: {" + name + ": <column or output>}",
            )
        if name in self.columns:  # an earlier step has said how it is read
            return _cast(self.columns[name].spec, wanted, who)
        self.columns[name] = input_column(
            name, wanted, self.table, self.declared.get(name), who=who, also_read=also_read
        )
        return None

    def make(self, spec: TensorSpec, name: str, who: str) -> tuple[TensorSpec, str]:
        """Note that a step makes ``name``, and return what was given.

        Raises:
            ModelError: ``OUTPUT_NAME`` if an earlier step's value of that name would be lost.
        """
        if name in self.made and name not in self.read:
            raise ModelError(
                "OUTPUT_NAME",
                f"{who} makes '{name}', which an earlier step made and nothing has read.",
                hint="rename one: outputs: {" + spec.name + ": <new name>}",
            )
        self.made.pop(name, None)
        self.read.discard(name)
        self.made[name] = replace(spec, name=name)
        return spec, name


def _cast(made: TensorSpec, wanted: TensorSpec | None, who: str) -> str | None:
    if wanted is None:
        return None
    fits = len(made.shape) == len(wanted.shape) and all(
        a is None or b is None or a == b for a, b in zip(made.shape, wanted.shape, strict=True)
    )
    if not fits:
        raise ModelError("MODEL_INPUT_MISMATCH", f"{who} needs {wanted}; '{made.name}' is {made}.")
    if made.dtype == wanted.dtype:
        return None
    if "string" in (made.dtype, wanted.dtype) or not np.can_cast(made.numpy_dtype, wanted.numpy_dtype, "same_kind"):
        raise ModelError(
            "MODEL_INPUT_MISMATCH", f"{who} needs {wanted}; '{made.name}' is {made}, which does not convert safely."
        )
    return wanted.dtype
