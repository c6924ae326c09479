"""In which form each source column holds its tensor, and what reading it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ImageStep
from lakemill_udfs.tensors.column_inputs import InputColumn
from lakemill_udfs.tensors.spec import ARROW_DTYPES
from lakemill_udfs.wiring import Wiring


@dataclass(frozen=True)
class InputForm:
    """How a column reaches the steps that read it.

    Args:
        column: The source column.
        form: How it holds the values.
        feeds: The inputs it feeds, as ``step: input``.
        tensor: The tensor that is made of it.
        conversion: What is done to it.
        copies: Whether that copies the values.
    """

    column: str
    form: str
    feeds: tuple[str, ...]
    tensor: str
    conversion: str
    copies: bool


def input_forms(pipeline: Pipeline, wiring: Wiring, types: Mapping[str, pa.DataType | str]) -> list[InputForm]:
    """Return the form of each column that a pipeline reads.

    Args:
        pipeline: Its steps name what they read.
        wiring: Which columns feed tensors.
        types: Arrow type of each column, or in words what Python holds.
    """
    forms = [
        InputForm(
            step.column, "encoded image", (f"step {at}: image",), str(step.spec), "decoded and prepared", copies=True
        )
        for at, step in enumerate(pipeline.steps, 1)
        if isinstance(step, ImageStep) and step.column in types
    ]
    for column in wiring.columns:
        feeds = [
            f"step {at}: {name}"
            for at, step in enumerate(wiring.steps, 1)
            for name, source in step.inputs
            if source == column.spec.name
        ]
        form, conversion, copies = reading(types[column.spec.name], column)
        if column.dims:
            form = f"flattened, with {', '.join(column.dims)}"
        forms.append(InputForm(column.spec.name, form, tuple(feeds), str(column.spec), conversion, copies=copies))
    return forms


def reading(kind: pa.DataType | str, column: InputColumn) -> tuple[str, str, bool]:
    """Return a column's form, what is done to read it, and whether that copies."""
    spec = column.spec
    if isinstance(kind, str):
        return _numbers(kind, kind.rpartition(" ")[2], spec.dtype)
    if pa.types.is_struct(kind):
        return "bytes with their shape", "read row by row, batched by shape", True
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _numbers(f"{column.stored_dtype} as bytes", column.stored_dtype, spec.dtype)
    levels = 0
    while True:
        if isinstance(kind, pa.FixedShapeTensorType) or _is_list(kind):
            levels, kind = levels + 1, kind.value_type
        else:
            break
    stored = ARROW_DTYPES.get(kind, str(kind))
    form = f"array of {stored}" if levels == 1 else f"nested arrays of {stored}" if levels else stored
    if "string" in (stored, spec.dtype):
        return form, "made Python strings", True
    return _numbers(form, stored, spec.dtype)


def _numbers(form: str, stored: str, wanted: str) -> tuple[str, str, bool]:
    if stored != wanted:
        return form, f"cast to {wanted}", True
    if wanted == "bool" and "bytes" not in form:
        return form, "bits made bytes", True
    return form, "one view a batch, where rows are of one size and none is null", False


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
