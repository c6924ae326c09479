"""Every form in which a column may hold a tensor gives the same batch, and one bad row costs no good one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lakemill_udfs.tensors.columns import read_tensor, write_tensor
from lakemill_udfs.tensors.ragged import from_rows
from lakemill_udfs.tensors.spec import ARROW_SCALARS, DTYPES, OBJECTS, TensorSpec

NUMBERS = [dtype for dtype in DTYPES if dtype not in OBJECTS]


@st.composite
def batches(draw: st.DrawFn, *, rank: tuple[int, int] = (0, 3), rows: tuple[int, int] = (0, 5)) -> Any:
    """Draw a spec and a batch that fits it."""
    dtype = draw(st.sampled_from(NUMBERS))
    shape = tuple(draw(st.lists(st.integers(0, 3), min_size=rank[0], max_size=rank[1])))
    count = draw(st.integers(*rows))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 255, (count, *shape))
    return TensorSpec("x", dtype, shape), (values % 2 if dtype == "bool" else values % 120).astype(dtype)


def nested(batch: NDArray[Any], dtype: str) -> pa.Array:
    kind = ARROW_SCALARS[dtype]
    for _ in batch.shape[1:]:
        kind = pa.list_(kind)
    return pa.array(batch.astype("float32" if dtype == "float16" else dtype).tolist(), kind)


def assert_reads(column: Any, spec: TensorSpec, batch: NDArray[Any], stored: str | None = None) -> None:
    got, failures = read_tensor(column, spec, stored or spec.dtype)
    assert failures is None or not any(failures)
    assert got.dtype == spec.numpy_dtype
    np.testing.assert_array_equal(got, batch)
    assert got.shape == batch.shape


@given(batches())
def test_what_is_written_is_read_back_the_same(case: tuple[TensorSpec, NDArray[Any]]) -> None:
    spec, batch = case
    column = write_tensor(batch, spec)
    assert column.type == spec.arrow_type()
    assert_reads(column, spec, batch)


@given(batches(rank=(1, 3)))
def test_a_free_dimension_is_written_with_its_shape(case: tuple[TensorSpec, NDArray[Any]]) -> None:
    spec, batch = case
    free = TensorSpec("x", spec.dtype, (None, *spec.shape[1:]))
    if len(batch):
        assert_reads(write_tensor(batch, free), free, batch)


@pytest.mark.parametrize("storage", ["auto", "array"])
def test_rows_of_different_size_are_written_each_with_its_own(storage: Literal["auto", "array"]) -> None:
    spec = TensorSpec("x", "float32", (None, 2), storage=storage)
    rows = [np.arange(2.0 * size, dtype="float32").reshape(size, 2) for size in (2, 0, 1)]
    column = write_tensor(from_rows(rows), spec)
    assert column.type == spec.arrow_type()
    for row, written in zip(rows, column.to_pylist(), strict=True):
        got = written if storage == "array" else np.frombuffer(written["data"], "<f4").reshape(written["shape"])
        np.testing.assert_array_equal(np.array(got).reshape(row.shape), row)
    stacked = write_tensor(np.ones((3, 4, 2), "float32"), spec)
    assert stacked.type == spec.arrow_type()
    assert_reads(stacked, spec, np.ones((3, 4, 2), "float32"))


@settings(max_examples=40)
@given(batches(rank=(1, 3), rows=(1, 5)), st.integers(0, 3), st.integers(0, 3))
def test_every_form_and_every_slice_gives_the_same_batch(
    case: tuple[TensorSpec, NDArray[Any]], start: int, cut: int
) -> None:
    spec, batch = case
    rows = len(batch)
    forms = [write_tensor(batch, TensorSpec("x", spec.dtype, (1, *spec.shape)))]
    if all(spec.shape):
        forms.append(nested(batch, spec.dtype))
        flat = pa.array(batch.reshape(-1)) if spec.dtype != "float16" else pa.array(batch.astype("f4").reshape(-1))
        forms.append(pa.FixedSizeListArray.from_arrays(flat, batch[0].size))
        forms.append(nested(batch.reshape(rows, -1), spec.dtype))
        forms.append(pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(batch)))
    for form in forms:
        assert_reads(form, spec, batch)
        assert_reads(form.slice(start), spec, batch[start:])
        chunks = pa.chunked_array([form.slice(0, cut), form.slice(cut)])
        assert_reads(chunks, spec, batch)


def test_a_tensor_array_with_turned_axes_is_read_as_it_is_meant() -> None:
    batch = np.arange(24, dtype="float32").reshape(2, 3, 4).transpose(0, 2, 1)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(batch)
    assert column.type.permutation == [1, 0]
    assert_reads(column, TensorSpec("x", "float32", (4, 3)), batch)


@pytest.mark.parametrize(
    ("stored", "wanted", "values"),
    [
        ("uint8", "float32", [0, 255]),
        ("float64", "float32", [0.5, 1e30]),
        ("float32", "float64", [0.5, -1]),
        ("int64", "uint8", [0, 255]),
        ("float64", "int32", [1.0, -2.0]),
        ("bool", "float32", [0, 1]),
        ("int64", "bool", [0, 1]),
        ("float32", "float16", [0.1, 2]),
        ("float16", "float32", [0.5, 2]),
        ("uint64", "float64", [1, 2**60]),
        ("uint64", "uint64", [1, 2**64 - 1]),
    ],
)
def test_casts_without_loss_are_made_in_every_form(stored: str, wanted: str, values: list[float]) -> None:
    batch = np.array(values, dtype=stored)
    spec = TensorSpec("x", wanted)
    assert_reads(write_tensor(batch, TensorSpec("x", stored)), spec, batch.astype(wanted))
    square = np.stack([batch, batch])[:, :, np.newaxis]
    column = write_tensor(square, TensorSpec("x", stored, (2, 1)))
    assert_reads(column, TensorSpec("x", wanted, (2, 1)), square.astype(wanted), stored)


@pytest.mark.parametrize(
    ("stored", "wanted", "bad"),
    [
        *[("int64", "uint8", 256), ("int64", "int32", 2**40), ("float64", "int32", 1.5), ("int32", "bool", 2)],
        *[("float64", "float32", 1e300), ("float32", "float16", 1e6), ("int32", "float16", 10**6)],
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=["scalar", "list", "binary"])
def test_a_cast_that_would_change_a_value_fails_that_row_only(
    stored: str, wanted: str, bad: float, shape: tuple[int, ...]
) -> None:
    batch = np.array([1, bad, 0], dtype=stored).reshape(3, *shape)
    got, failures = read_tensor(
        write_tensor(batch, TensorSpec("x", stored, shape)), TensorSpec("x", wanted, shape), stored
    )
    assert got.reshape(-1).tolist() == [1, 0]
    assert [failure is None for failure in failures or []] == [True, False, True]
    assert "256" not in str(failures)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, None, 3.0]),
        pa.array([[1.0], None, [3.0]]),
        pa.array([[1.0], [None], [3.0]]),
        pa.array([b"\0\0\x80?", None, b"\0\0@@"]),
        pa.array([[1.0], [1.0, 2.0], [3.0]]),
        pa.array([b"\0\0\x80?", b"\0\0", b"\0\0@@"]),
    ],
    ids=["scalar null", "list null", "null in list", "binary null", "ragged list", "ragged binary"],
)
def test_a_row_that_is_null_or_of_another_size_fails_alone(column: pa.Array) -> None:
    shape = () if pa.types.is_floating(column.type) else (1,)
    got, failures = read_tensor(column, TensorSpec("x", "float32", shape), "float32")
    assert got.reshape(-1).tolist() == [1, 3]
    assert failures is not None
    assert failures[1] is not None
    assert failures[1].code in ("INPUT_NULL", "TENSOR_SHAPE")
    assert failures[0] is failures[2] is None


def test_an_optional_value_may_be_null() -> None:
    numbers, failures = read_tensor(pa.array([1.5, None]), TensorSpec("x", "float32", nullable=True), "float64")
    assert failures is None
    np.testing.assert_array_equal(numbers, np.array([1.5, np.nan], "float32"))
    words, failures = read_tensor(pa.array(["a", None]), TensorSpec("x", "string", nullable=True), "string")
    assert words.tolist() == ["a", None]
    assert not any(failures or [])


@pytest.mark.parametrize("shape", [(), (2,), (1, 2)])
def test_strings_of_any_rank(shape: tuple[int, ...]) -> None:
    batch = np.full((3, *shape), "é", dtype=object)
    spec = TensorSpec("x", "string", shape)
    column = write_tensor(batch, spec)
    assert_reads(column, spec, batch)
    assert_reads(column.slice(1), spec, batch[1:])


def test_a_null_inside_a_tensor_of_strings_fails_its_row() -> None:
    got, failures = read_tensor(pa.array([["a"], [None]]), TensorSpec("x", "string", (1,)), "string")
    assert got.tolist() == [["a"]]
    assert failures is not None
    assert failures[1] is not None
    assert failures[1].code == "INPUT_NULL"


def test_text_is_no_number_and_bytes_are_no_text() -> None:
    _, failures = read_tensor(pa.array(["secret"]), TensorSpec("x", "float32"), "string")
    assert [failure and failure.code for failure in failures or []] == ["INPUT_CAST"]
    assert "secret" not in str(failures)
    _, failures = read_tensor(pa.array([b"secret"]), TensorSpec("x", "string"), "string")
    assert [failure and failure.code for failure in failures or []] == ["INPUT_TYPE"]


def test_a_scalar_column_feeds_an_input_of_one_value() -> None:
    assert_reads(pa.array([1.0, 2.0]), TensorSpec("x", "float64", (1,)), np.array([[1.0], [2.0]]))
    assert_reads(pa.array([[1.0], [2.0]]), TensorSpec("x", "float64"), np.array([1.0, 2.0]))


def test_rows_whose_free_dimensions_differ_keep_each_its_own() -> None:
    spec = TensorSpec("x", "float32", (None,))
    column = pa.concat_arrays([write_tensor(np.ones((1, size), "float32"), spec) for size in (2, 3, 2)])
    got, failures = read_tensor(column, spec, "float32")
    assert failures is None
    assert [row.shape for row in got] == [(2,), (3,), (2,)]


@pytest.mark.parametrize("kind", ["binary", "fixed list", "tensor"])
def test_fixed_shape_numbers_are_read_without_a_copy(kind: str) -> None:
    batch = np.arange(24, dtype="float32").reshape(4, 2, 3)
    spec = TensorSpec("x", "float32", (2, 3))
    column = {
        "binary": write_tensor(batch, spec),
        "fixed list": pa.FixedSizeListArray.from_arrays(pa.array(batch.reshape(-1)), 6),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(batch),
    }[kind]
    storage = column.storage if kind == "tensor" else column
    held = storage.buffers()[2] if kind == "binary" else storage.values.buffers()[1]
    for start in (0, 1):
        got, _ = read_tensor(column.slice(start), spec, "float32")
        assert got.__array_interface__["data"][0] == held.address + start * 24
