"""Values in any form are read as what they are, or refused with a code: never a wrong value in silence."""

from __future__ import annotations

import array
import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakemill.in_process.files import read_data
from lakemill.in_process.json_values import plain
from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError, LakemillError
from lakemill_udfs.steps.declared import Check
from lakemill_udfs.tensors.columns import read_tensor
from lakemill_udfs.tensors.spec import TensorSpec
from tests.unit.plans import function

RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array([1.0, 2.0]))
ONE_TWO = [
    np.array([1, 2], ">i8"),
    np.array([1, 2], ">f4"),
    np.ma.masked_array([1.0, 2.0], [False, False]),
    array.array("d", [1, 2]),
    memoryview(np.array([1.0, 2.0])),
    RUNS,
    pa.chunked_array([RUNS.slice(0, 1), RUNS.slice(1)]),
    pa.array([1.0, 2.0]).dictionary_encode(),
    pa.array([Decimal("1.00"), Decimal("2.00")]),
    pa.array([Decimal("1.00"), Decimal("2.00")], pa.decimal256(40, 2)),
    [Decimal(1), Decimal(2)],
    pd.Series([1.0, 2.0], dtype="Sparse[float64]"),
    pd.Series([1, 2], dtype="Int64"),
    pd.Series([1.0, 2.0], dtype="double[pyarrow]"),
    pd.Series([1, 2]).astype("category"),
    pl.Series([1, 2]),
    np.array([[1.0], [2.0]]).view(np.matrix),
]


def result(values: Any, spec: TensorSpec) -> Any:
    outputs = {"y": {"dtype": spec.dtype, "shape": list(spec.shape)}}
    pipeline = Pipeline((function("identity", outputs),), inputs=(spec,))
    return pipeline.infer(values if isinstance(values, pd.DataFrame | pa.Table) else {"x": values})["out.y"]


@pytest.mark.parametrize("values", ONE_TWO, ids=lambda values: str(getattr(values, "type", type(values).__name__)))
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_one_and_two_are_read_in_every_form(values: Any, dtype: str) -> None:
    assert result(values, TensorSpec("x", dtype)) == [1, 2]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_view(pa.float32()),
        pa.large_list_view(pa.float32()),
        pa.large_list(pa.float32()),
        pa.list_(pa.dictionary(pa.int8(), pa.float32())),
        pa.list_(pa.run_end_encoded(pa.int32(), pa.float32())),
        pa.list_(pa.decimal128(5, 2)),
    ],
    ids=str,
)
def test_lists_are_read_in_every_form(kind: pa.DataType) -> None:
    flat = pa.array([1, 2, 3, 4], pa.float32())
    inner = kind.value_type
    if pa.types.is_dictionary(inner):
        values = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), flat.dictionary_encode())
    elif pa.types.is_run_end_encoded(inner):
        runs = pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4], pa.int32()), flat)
        values = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), runs)
    else:
        number = Decimal if pa.types.is_decimal(inner) else float
        values = pa.array([[number(1), number(2)], [number(3), number(4)]], kind)
    assert result(values, TensorSpec("x", "float32", (2,))) == [[1, 2], [3, 4]]


def test_a_null_among_list_views_fails_its_row_alone() -> None:
    views = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_view(pa.float32()))
    got, failures = read_tensor(views.slice(1), TensorSpec("x", "float32", (2,)), "float32")
    assert got.tolist() == [[3, 4]]
    assert [failure and failure.code for failure in failures or []] == ["INPUT_NULL", None]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_is_read_in_every_form(kind: pa.DataType) -> None:
    assert result(pa.array(["a", "b"]).cast(kind), TensorSpec("x", "string")) == ["a", "b"]


def test_bytes_in_views_are_tensors_as_any_bytes() -> None:
    values = pa.array([np.ones(2, "float32").tobytes()] * 2, pa.binary_view())
    assert result(values, TensorSpec("x", "float32", (2,))) == [[1, 1], [1, 1]]


def test_a_memoryview_says_itself_what_it_holds() -> None:
    assert result([memoryview(np.array([1.5, 2.5]))], TensorSpec("x", "float32", (2,))) == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("values", "dtype", "code"),
    [
        (np.array([1.0, 1e300]), "float32", "INPUT_CAST"),
        ([1.0, 1e300], "float32", "INPUT_CAST"),
        (pa.array([1.0, 1e300]), "float32", "INPUT_CAST"),
        ([1.0, 1e5], "float16", "INPUT_CAST"),
        ([1, 2**70], "int64", "INPUT_TYPE"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), "float32", "INPUT_NULL"),
        (np.ma.masked_array([[1.0, 2.0]], [[False, True]]), "float32", "INFER_INPUT"),
        ([np.ma.masked_array([1.0, 2.0], [False, True])], "float32", "INPUT_NULL"),
        (pa.array([Decimal("1.5"), Decimal(2)]), "int32", "INPUT_CAST"),
        (np.array([1, 2], "m8[s]"), "float32", "COLUMN_TYPE"),
        ([dt.timedelta(1), dt.timedelta(2)], "float32", "COLUMN_TYPE"),
        (np.array([1 + 1j]), "float32", "COLUMN_TYPE"),
        (["a", "\ud800"], "string", "INPUT_TEXT"),
        (pd.Series(pd.interval_range(0, 2)), "float32", "COLUMN_TYPE"),
        (pd.Series(pd.period_range("2020", periods=2)), "float32", "COLUMN_TYPE"),
        (pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), "float32", "INFER_INPUT"),
        (pa.table([pa.array([1.0]), pa.array([2.0])], ["x", "x"]), "float32", "INFER_INPUT"),
        (b"\0\0", "float32", "INFER_INPUT"),
    ],
)
def test_what_would_be_another_value_is_refused(values: Any, dtype: str, code: str) -> None:
    with pytest.raises(LakemillError, match=rf"^\[{code}\].*x"):
        result(values, TensorSpec("x", dtype))


def test_infinity_and_nan_stay_what_they_are() -> None:
    got = result(pa.table({"x": [np.inf, -np.inf, np.nan]}), TensorSpec("x", "float32")).to_numpy()
    np.testing.assert_array_equal(got, [np.inf, -np.inf, np.nan])


def test_polars_frames_go_in_and_come_out() -> None:
    pixels = np.arange(12, dtype="float32").reshape(2, 2, 3)
    frame = pl.DataFrame({"x": pixels, "name": ["a", "b"]})
    outputs = {"y": {"dtype": "float32", "shape": [2, 3]}}
    got = Pipeline((function("identity", outputs),)).infer(frame)
    assert isinstance(got, pl.DataFrame)
    assert got["in.name"].to_list() == ["a", "b"]
    np.testing.assert_array_equal(got["out.y"].to_numpy(), pixels)
    assert got["anomaly.count"].to_list() == [0, 0]
    assert Pipeline((function("identity"),)).infer(pl.DataFrame({"x": [1.0]})[:0].cast(pl.Float32)).height == 0


JSON_VALUES = [
    ([np.nan, np.inf, -np.inf, 1.0], [None, "Infinity", "-Infinity", 1.0]),
    (np.array([[np.nan, 1.0]], "float16"), [[None, 1.0]]),
    (np.array(["2020-01-02T03:04:05.000000006", "NaT"], "M8[ns]"), ["2020-01-02T03:04:05.000000006", None]),
    (np.array([1500, "NaT"], "m8[ms]"), ["PT1.5S", None]),
    (dt.timedelta(days=1), "PT86400S"),
    (dt.datetime(2020, 1, 2, tzinfo=dt.UTC), "2020-01-02T00:00:00+00:00"),
    (Decimal("1.10"), "1.10"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ([pd.NA, pd.NaT, pd.Timestamp("2020")], [None, None, "2020-01-01T00:00:00"]),
    ({1: b"\0"}, {"1": "AA=="}),
    (np.float32("nan"), None),
    (pa.array([{"a": float("nan")}]), [{"a": None}]),
    ((True, 1, "a"), [True, 1, "a"]),
]


@pytest.mark.parametrize(("value", "expected"), JSON_VALUES, ids=lambda value: type(value).__name__)
def test_json_is_what_a_strict_reader_takes(value: Any, expected: Any) -> None:
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def damaged(table: pa.Table, path: Path) -> Path:
    """Write a file whose last offset stands far behind the values."""
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    content = path.read_bytes()
    offsets = np.array([0, 3, 6], "<i4").tobytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.array([0, 2**30, 2**30 + 3], "<i4").tobytes()))
    return path


def test_an_arrow_file_with_offsets_behind_its_buffer_is_an_error(tmp_path: Path) -> None:
    path = damaged(pa.table({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}), tmp_path / "x.arrow")
    with pytest.raises(ConfigError, match=r"^\[FILE_CONTENT\] .*does not parse \(ArrowInvalid\)"):
        read_data(path, Pipeline((function("identity"),)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", "3"),
        ("x.json", '["a"]'),
        ("x.json", '{"x": [1], "x": [2]}'),
        ("x.json", "[" * 100_000),
        ("x.df.json", "3"),
        ("x.arrow", "ARROW1\0\0"),
        ("x.parquet", "PAR1PAR1"),
    ],
)
def test_a_file_that_holds_no_rows_is_an_error_with_a_code(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=r"^\[FILE_CONTENT\]"):
        read_data(tmp_path / name, Pipeline((function("identity"),)))


ODD = {
    "longdouble": np.array([1, 2], np.longdouble),
    "complex": np.array([1j, 2j]),
    "nanoseconds": np.array([1, "NaT"], "m8[ns]"),
    "objects": [object(), object()],
    "mixed": [1, "a"],
    "surrogate": ["\ud800", None],
    "record": np.array([(1, 2), (3, 4)], dtype=[("a", "i4"), ("b", "i4")]),
    "interval": pd.Series(pd.interval_range(0, 2)),
    "time zone": pd.Series(pd.date_range("2020", periods=2, tz="Europe/Berlin")),
    "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    "months": pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval()),
}


@pytest.mark.parametrize("name", ODD)
def test_a_column_that_nothing_reads_may_hold_anything(name: str) -> None:
    checked = Pipeline((function("identity"),), (Check("large", "out.y > 1"),), inputs=(TensorSpec("x", "float32"),))
    got = checked.infer({"x": [1.0, 2.0], name: ODD[name]})
    assert got["anomaly.large"] == [False, True]
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("name", ODD)
def test_a_check_of_an_odd_column_is_judged_or_refused_with_a_code(name: str) -> None:
    expression = pl.col("in").struct.field(name).is_null()
    pipeline = Pipeline((function("identity"),), (Check("odd", lambda: expression),))
    (outcome,) = pipeline.parallel_infer([{"x": np.ones(2, "float32"), name: ODD[name]}])
    code = outcome.code if isinstance(outcome, LakemillError) else len(outcome["anomaly.odd"])
    assert code in (2, "INFER_INPUT", "CHECK_TYPE", "CHECK_FAILED")
