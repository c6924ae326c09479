"""Columns to tensors: images by the image step of inference, tensors by their metadata, scalars and strings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill.training.transform_spec import TransformSpec
from lakemill_udfs.errors import ConfigError, RowError, RunError, TableError
from lakemill_udfs.files import NO_FILES, RowFiles
from lakemill_udfs.images.step import ImageDecoder
from lakemill_udfs.steps.declared import ImageStep
from lakemill_udfs.tensors.cells import contents, read_column, texts
from lakemill_udfs.tensors.columns import read_tensor
from lakemill_udfs.tensors.ragged import is_ragged
from lakemill_udfs.tensors.spec import Kind, TensorSpec, arrow_tensors

Arrays = dict[str, NDArray[Any]]
Ragged = Literal["error", "pad", "list"]
"""What becomes of a batch whose rows differ in shape: an error, zeros behind each, or a list of arrays."""

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Fields:
    """What a loader gives of a table.

    Args:
        schema: The table's.
        images: Steps that decode a column each.
        dtype: Of all ``float32`` and ``float64`` tensors; None leaves them as they are.
        selected: Names or regular expressions of whole names, of columns and of the steps' outputs; None is all.
        transform: What is made of them.
        ragged: What becomes of a batch whose rows differ in shape.
        files: Which files rows may name by their path.

    Raises:
        ConfigError: ``TRAINING_FIELD`` for a name that there is not.
        TableError: ``TRAINING_COLUMN`` for a column that cannot become a tensor.
    """

    schema: pa.Schema
    images: tuple[ImageStep, ...] = ()
    dtype: str | None = "float32"
    selected: tuple[str, ...] | None = None
    transform: TransformSpec | None = None
    ragged: Ragged = "error"
    files: RowFiles = NO_FILES

    def __post_init__(self) -> None:
        for step in self.images:
            if step.column not in self.schema.names:
                raise self._no_field(step.column, self.schema.names)
        _ = self.specs

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns and images, before any transform."""
        encoded = {step.column for step in self.images}
        present = [name for name in self.schema.names if name not in encoded] + [step.output for step in self.images]
        if self.selected is None:
            return tuple(present)
        found: dict[str, None] = {}
        for pattern in self.selected:
            matching = [name for name in present if name == pattern or re.fullmatch(pattern, name)]
            if not matching:
                raise self._no_field(pattern, present)
            found |= dict.fromkeys(matching)
        return tuple(found)

    @cached_property
    def steps(self) -> tuple[ImageStep, ...]:
        """The image steps whose output is asked for."""
        return tuple(step for step in self.images if step.output in self.names)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The table's columns that are read."""
        needed = [name for name in self.names if name in self.schema.names]
        for step in self.steps:
            needed += [name for name in (step.column, step.path_column) if name in self.schema.names]
        return tuple(dict.fromkeys(needed))

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return arrow_tensors(self.schema) | {step.output: step.spec for step in self.images}

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors of a batch, by name; a shape is without the batch dimension."""
        transform = self.transform or TransformSpec()
        kinds = {name: self._kinds[name] for name in self.names} | transform.edits
        return {name: self._spec(name, kinds[name]) for name in transform.names(self.names)}

    def _spec(self, name: str, kind: Kind) -> TensorSpec:
        if kind == "binary":
            return TensorSpec(name, "binary")
        if not isinstance(kind, TensorSpec):
            raise TableError(
                "TRAINING_COLUMN",
                f"column '{name}' is {kind}, which is no tensor.",
                hint="leave it out with schema_fields=[...], or convert it with a TransformSpec and declare what it "
                "becomes in edit_fields.",
            )
        is_table_s = name in self.schema.names and name not in (self.transform or TransformSpec()).edits
        return replace(kind, dtype=self.dtype) if self.dtype and is_table_s and kind.dtype in FLOATS else kind

    def arrays(self, rows: pa.Table) -> Arrays:
        """Return the tensors of some rows, rows first.

        Raises:
            RunError: ``TRAINING_ROW`` if a row has no tensor, ``TRAINING_RAGGED`` if rows differ in shape.
        """
        if self.transform is None or self.transform.func is None:
            arrays = {name: self._array(name, rows) for name in self.specs}
        else:
            arrays = self._transformed(rows, self.transform)
        return {name: self._even(array, self.specs[name]) for name, array in arrays.items()}

    def _array(self, name: str, rows: pa.Table) -> NDArray[Any]:
        step = next((step for step in self.steps if step.output == name), None)
        if step is not None:
            return self._decoded(step, rows)
        stored = self._kinds[name]
        if not isinstance(stored, TensorSpec):
            if rows[name].null_count and name in self.specs and self.transform is None:
                _raise_first(name, [RowError("INPUT_NULL", f"{name}: a required input is null.")] * rows.num_rows)
            return np.asarray(rows[name].to_numpy(), dtype=object)
        values, failures = read_tensor(rows[name], self.specs.get(name, stored), stored.dtype)
        _raise_first(name, failures or ())
        return values

    def _decoded(self, step: ImageStep, rows: pa.Table) -> NDArray[Any]:
        paths = texts(rows[step.path_column]) if step.path_column in rows.column_names else [None] * rows.num_rows
        images, failures = ImageDecoder(step, self.files).run(contents(rows[step.column]), paths)
        _raise_first(step.output, [failure and failure[1] for failure in failures])
        return images

    def _transformed(self, rows: pa.Table, transform: TransformSpec) -> Arrays:
        assert transform.func is not None  # noqa: S101 -- the caller looked
        if transform.takes_arrays:
            made: Mapping[str, Any] = transform.func({name: self._array(name, rows) for name in self.names})
        else:
            made = transform.func(self._frame(rows))
        arrays = {}
        for name, spec in self.specs.items():
            if name not in made:
                raise _wrong(f"the transform's result has no column '{name}'; it has: {', '.join(map(str, made))}.")
            if len(made[name]) != rows.num_rows:
                raise _wrong(f"'{name}' has {len(made[name])} rows in the transform's result, of {rows.num_rows}.")
            values, failures = read_column(_stacked(made[name]), spec, spec.dtype)
            _raise_first(name, failures or ())
            arrays[name] = values
        return arrays

    def _frame(self, rows: pa.Table) -> Any:
        """Return a DataFrame: tensors and images as arrays, all else as pandas has it."""
        plain = [name for name in self.names if name in rows.column_names and not self._is_stored_tensor(name)]
        frame = rows.select(plain).to_pandas()
        for name in self.names:
            if name not in plain:
                values = self._array(name, rows)
                frame[name] = list(values) if values.ndim > 1 else values
        return frame[list(self.names)]

    def _is_stored_tensor(self, name: str) -> bool:
        return b"lakemill.dtype" in (self.schema.field(name).metadata or {})

    def _even(self, values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
        if not is_ragged(values, spec) or self.ragged == "list":
            return values
        if self.ragged == "error":
            raise RunError(
                "TRAINING_RAGGED",
                f"'{spec.name}': the rows of a batch differ in shape, {_shapes(values)}.",
                hint="ragged='pad' puts zeros behind, ragged='list' gives one array a row.",
            )
        sizes = np.array([row.shape for row in values])
        padded = np.zeros((len(values), *sizes.max(axis=0)), spec.numpy_dtype)
        for target, row in zip(padded, values, strict=True):
            target[tuple(map(slice, row.shape))] = row
        return padded

    @staticmethod
    def _no_field(name: str, present: Sequence[str]) -> ConfigError:
        return ConfigError(
            "TRAINING_FIELD",
            f"there is no column '{name}'; there are: {', '.join(present)}.",
            hint="names match whole.",
        )


def _wrong(message: str) -> RunError:
    return RunError("TRAINING_TRANSFORM", message, hint="func returns one row for each row it is given.")


def _raise_first(name: str, failures: Sequence[RowError | None]) -> None:
    failed = [failure for failure in failures if failure is not None]
    if failed:
        raise RunError(
            "TRAINING_ROW",
            f"'{name}': {len(failed)} of the {len(failures)} rows of a batch have no tensor; the first: {failed[0]}",
            hint="leave such rows out with where=...; rows of images that do not decode are found by a predict job.",
        )


def _stacked(values: Any) -> Any:
    """Return a result's column as one array where its cells are arrays of one shape."""
    cells = values.to_numpy() if hasattr(values, "to_numpy") else values
    if isinstance(cells, np.ndarray) and cells.dtype != object:
        return cells
    if len(cells) and all(isinstance(cell, np.ndarray) and cell.shape == cells[0].shape for cell in cells):
        return np.stack(list(cells))
    return list(cells)


def _shapes(values: NDArray[Any]) -> str:
    shapes: Iterator[str] = (f"({', '.join(map(str, row.shape))})" for row in values)
    return " and ".join(list(dict.fromkeys(shapes))[:2])
