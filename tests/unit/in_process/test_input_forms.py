"""Every form that an input may have feeds the same tensor; rows of different size are batched by shape."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import TableError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.steps.declared import PythonStep
from lakemill_udfs.tensors.cells import read_column
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.spec import DTYPES, OBJECTS, TensorSpec
from lakemill_udfs.worker import columns_of
from tests.unit.plans import plan_for

NUMBERS = [dtype for dtype in DTYPES if dtype not in OBJECTS]


@st.composite
def batches(draw: st.DrawFn) -> Any:
    """Draw a spec, fixed or free, and a batch that fits it: ranks 0 to 5, sizes 0 and up."""
    dtype = draw(st.sampled_from((*NUMBERS, "string")))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=5)))
    rows = draw(st.integers(1, 4))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 120, (rows, *shape))
    batch = numbers.astype(str).astype(object) if dtype == "string" else (numbers % 2 if dtype == "bool" else numbers)
    free = draw(st.integers(0, len(shape)))
    return TensorSpec("x", dtype, (None,) * free + shape[free:]), batch.astype(object if dtype == "string" else dtype)


def forms(batch: NDArray[Any], spec: TensorSpec) -> dict[str, tuple[Any, list[Any]]]:
    """Return a batch in every form that can hold it, with its columns of dimensions."""
    rows, shape = len(batch), batch.shape[1:]
    python = batch.tolist()
    made: dict[str, Any] = {"numpy": batch, "numpy cells": list(batch)}
    if spec.is_fixed or 0 not in shape[:-1]:  # an empty list does not say what it is a list of
        made["nested list"] = python
    nested = pa.array(python) if batch.size else None
    if nested is not None:
        made["Arrow nested"] = nested
        made["Arrow nested, in pandas"] = nested.to_pandas().to_numpy()
    dims = [pa.array([size] * rows, pa.int64()) for size in shape]
    if spec.dtype != "string":
        whole = TensorSpec("x", spec.dtype, (1, *shape))  # rank 2 and more, as Delta holds it
        free = TensorSpec("x", spec.dtype, (None,) * len(shape))
        if spec.is_fixed:
            made["BINARY"] = write_tensor(batch.reshape(rows, 1, *shape), whole)
            made["bytes"] = made["BINARY"].to_pylist()
        if shape:
            made["struct"] = write_tensor(batch, free)
            made["dicts"] = made["struct"].to_pylist()
        if batch.size:
            values = pa.array(batch.reshape(-1))
            if spec.is_fixed:
                made["FixedSizeList"] = pa.FixedSizeListArray.from_arrays(values, batch[0].size)
            if len(shape) > 1:
                made["tensor"] = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(batch))
    flat = {"flat + dims": pa.array(batch.reshape(rows, -1).tolist()), "flat numpy + dims": batch.reshape(rows, -1)}
    with_dims = {name: (column, dims) for name, column in flat.items()} if batch.size and len(shape) > 1 else {}
    return {name: (column, []) for name, column in made.items()} | with_dims


@settings(max_examples=60)
@given(batches())
def test_every_form_gives_the_same_tensor(case: tuple[TensorSpec, NDArray[Any]]) -> None:
    spec, batch = case
    whole = forms(batch, spec)
    arrow = {form: pair for form, pair in whole.items() if isinstance(pair[0], pa.Array)}
    chunked = {
        f"{form}, in two chunks": (pa.chunked_array([column.slice(0, 1), column.slice(1)]), dims)
        for form, (column, dims) in arrow.items()
    }
    for form, (column, dims) in (whole | chunked).items():
        got, failures = read_column(column, spec, spec.dtype, dims)
        assert failures is None, form
        assert got.dtype == spec.numpy_dtype, form
        assert got.shape == batch.shape, form
        np.testing.assert_array_equal(got, batch, form)
    for form, (column, dims) in arrow.items():
        got, _ = read_column(column.slice(1), spec, spec.dtype, [dim.slice(1) for dim in dims])
        assert len(got) == len(batch) - 1
        for row, one in zip(got, batch[1:], strict=True):
            np.testing.assert_array_equal(row, one, form)


@settings(max_examples=40)
@given(batches(), st.data())
def test_a_null_fails_its_row_or_is_left_out_where_it_may_be_in_every_form(
    case: tuple[TensorSpec, NDArray[Any]], data: st.DataObject
) -> None:
    spec, batch = case
    bad = data.draw(st.integers(0, len(batch) - 1))
    optional = replace(spec, nullable=True)
    for form, (column, dims) in forms(batch, spec).items():
        if isinstance(column, pa.FixedShapeTensorArray) or (isinstance(column, np.ndarray) and column.dtype != object):
            continue  # neither holds nulls
        cells = column.to_pylist() if isinstance(column, pa.Array) else list(column)
        cells[bad] = None
        holed = pa.array(cells, column.type) if isinstance(column, pa.Array) else cells
        got, failures = read_column(holed, spec, spec.dtype, dims)
        assert failures is not None, form
        assert [failure and failure.code for failure in failures] == [
            "INPUT_NULL" if row == bad else None for row in range(len(batch))
        ], form
        for row, one in zip(got, np.delete(batch, bad, axis=0), strict=True):
            np.testing.assert_array_equal(row, one, form)
        got, failures = read_column(holed, optional, spec.dtype, dims)
        assert failures is None, form
        for row in range(len(batch)):
            if row != bad:
                np.testing.assert_array_equal(got[row], batch[row], form)
            elif spec.shape or not spec.dtype.startswith("float"):
                assert got[row] is None, form
            else:
                assert np.isnan(got[row]), form


def run(table: pa.Table, inputs: dict[str, str] | None = None, declared: tuple[TensorSpec, ...] = ()) -> Batch:
    """Run a function that says which shapes it was called with; return a later run: the very first row goes alone."""
    outputs = {"rows": {"dtype": "int64"}, "y": {"dtype": "float32", "shape": [None, None]}}
    step = PythonStep("tests.unit.features:calls", outputs, inputs or {"x": "x"})
    runner = PipelineRunner(plan_for([step], table.schema, inputs=declared))
    runner.run(columns_of(table), table.num_rows)
    return runner.run(columns_of(table), table.num_rows)


def test_rows_of_different_size_are_batched_by_shape_and_come_back_in_order() -> None:
    sizes = [(1, 2), (2, 2), (1, 2), (1, 2), (2, 2)]
    rows = [np.full(size, row, "float32") for row, size in enumerate(sizes)]
    batch = run(pa.table({"x": [row.tolist() for row in rows]}))
    assert batch.values["rows"].tolist() == [3, 2, 3, 3, 2]
    for got, row in zip(batch.values["y"], rows, strict=True):
        np.testing.assert_array_equal(got, row)


def test_dimensions_stand_beside_flattened_values_under_either_name() -> None:
    flat = pa.array([[0, 1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13]], pa.list_(pa.float32()))
    for prefix in ("dim", "x_dim"):
        batch = run(pa.table({"x": flat, f"{prefix}0": [2, 1, 3], f"{prefix}1": [3, 2, 2]}))
        assert [row.shape for row in batch.values["y"]] == [(2, 3), (1, 2), (3, 2)]
        assert batch.values["y"][2].tolist() == [[8, 9], [10, 11], [12, 13]]


@pytest.mark.parametrize("dims", [[2, None, 2], [2, 4, 2], [2, -1, 2]])
def test_dimensions_that_do_not_fit_fail_their_row(dims: list[int | None]) -> None:
    flat = pa.array([[0, 1, 2, 3]] * 3, pa.list_(pa.float32()))
    batch = run(pa.table({"x": flat, "dim0": pa.array(dims, pa.int32()), "dim1": [2, 2, 2]}))
    assert {row: error.code for row, (_, error) in batch.failures.items()} == {1: "TENSOR_SHAPE"}


def test_a_function_that_reads_the_dimensions_itself_gets_the_values_flat() -> None:
    table = pa.table({"x": pa.array([[0, 1]], pa.list_(pa.float32())), "dim0": [1], "dim1": [2]})
    step = PythonStep(
        "tests.unit.features:shapes", {"rank": {"dtype": "int64"}}, {"x": "x", "dim0": "dim0", "d": "dim1"}
    )
    batch = PipelineRunner(plan_for([step], table.schema)).run(columns_of(table), 1)
    assert batch.values["rank"].tolist() == [1]


def test_plain_bytes_are_read_as_the_pipeline_declares_them() -> None:
    frames = np.arange(12, dtype="uint16").reshape(2, 2, 3)
    table = pa.table({"x": [frame.tobytes() for frame in frames]})
    batch = run(table, declared=(TensorSpec("x", "uint16", (2, 3)),))
    assert [row.tolist() for row in batch.values["y"]] == frames.tolist()
    with pytest.raises(
        TableError, match=r"^\[COLUMN_TYPE\] .* type binary, which does not say its tensor. Hint: declare"
    ):
        run(table)


def test_a_row_without_an_optional_value_runs_without_that_input() -> None:
    table = pa.table({"x": pa.array([[[1.0]], None, [[3.0]]], pa.list_(pa.list_(pa.float32()))), "z": [1, 2, None]})
    optional = (TensorSpec("x", "float32", (None, None), nullable=True), TensorSpec("z", "int32", (), nullable=True))
    batch = run(table, {"x": "x", "z": "z"}, optional)
    assert not batch.failures
    assert [row.tolist() for row in batch.values["y"]] == [[[1.0]], [[-1.0]], [[3.0]]]
    assert batch.values["rows"].tolist() == [1, 1, 1]
    assert sorted(run(table, {"x": "x", "z": "z"}).failures) == [1, 2]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([[1.0, 2.0], [3.0]], "TENSOR_RAGGED"),
        ([[2.35, "Bob"], [3.0, 4.0]], "INPUT_TYPE"),
        ([["Bob", 2.35], [3.0, 4.0]], "INPUT_TYPE"),
        ([[None, 2.0], [3.0, 4.0]], "INPUT_TYPE"),
        (None, "INPUT_NULL"),
        ([[dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]], "INPUT_DATE"),
        ([[np.datetime64("2026-01-01")]], "INPUT_DATE"),
        (np.zeros((2, 3)), "TENSOR_SHAPE"),
        (b"Bob", "TENSOR_SHAPE"),
        ("Bob", "INPUT_TYPE"),
    ],
    ids=str,
)
def test_what_a_model_cannot_take_fails_its_row_and_is_not_shown(value: Any, code: str) -> None:
    good = [[1.0, 2.0], [3.0, 4.0]]
    got, failures = read_column([good, value, good], TensorSpec("x", "float32", (2, 2)), "float32")
    assert got.tolist() == [good, good]
    assert failures is not None
    assert [failure and failure.code for failure in failures] == [None, code, None]
    assert "Bob" not in str(failures[1])
    assert "x" in str(failures[1])


def test_integers_are_never_cut_from_floats() -> None:
    spec = TensorSpec("x", "uint8", (2,))
    for column in ([[1, 2], [3.0, 255.0]], pa.array([[1.0, 2.0], [3.0, 255.0]])):
        assert read_column(column, spec, "uint8")[0].tolist() == [[1, 2], [3, 255]]
    got, failures = read_column([[1, 2], [1.5, 2], [1, 256]], spec, "uint8")
    assert got.tolist() == [[1, 2]]
    assert failures is not None
    assert [failure and failure.code for failure in failures] == [None, "INPUT_CAST", "INPUT_CAST"]


def test_other_axes_are_refused_before_anything_runs() -> None:
    table = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 4, 3)))})
    with pytest.raises(
        TableError, match=r"^\[COLUMN_SHAPE\] .* needs x float32\[3, 4\]; column 'x' holds x float64\[4, 3\]"
    ):
        run(table, declared=(TensorSpec("x", "float32", (3, 4)),))
