"""In-process inference: the same kind of thing out as in, and a bad row raises."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from lakemill.engines.reserved_columns import FEED_COLUMNS
from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError, LakemillError, RowError, RunError, TableError
from lakemill_udfs.plan import RESERVED
from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.tensors.columns import write_tensor
from lakemill_udfs.tensors.spec import TensorSpec, arrow_tensors
from tests.lake import image_rows, onnx_classifier, png
from tests.unit.plans import function

ROWS = image_rows(0, 4)
DARK = Pipeline(
    (ImageStep(mode="L", size=(1, 1), layout="flat", output="x"), function("double", {"y": {"shape": [1]}})),
    (Check("first", "in.number = 0"),),
)
BRIGHTNESS = [[20 * number / 255 * 2] for number in range(4)]
SHAPE = {"y": {"dtype": "float64", "shape": [3, 2]}}
SQUARES = Pipeline((PythonStep("tests.unit.features:double", SHAPE, {"x": "x"}),))
DOUBLED = Pipeline((function("double", {"y": {"dtype": "float64"}}),), (Check("large", "out.y > 3"),))


@pytest.mark.parametrize("name", [*RESERVED, *FEED_COLUMNS, "__lakemill_row", "out_shadow", "in.x"])
def test_names_that_tables_have_for_their_own_are_names_here(name: str, tmp_path: Path) -> None:
    """A result has the data's columns as ``in.<name>``, so no column of it meets one of Lakemill's or Delta's."""
    table = pa.table({"x": [1.0, 2.0], name: ["a", "b"]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    results = [DOUBLED.infer(table).to_pylist(), DOUBLED.infer(table.to_pandas()).to_dict("records")]
    for result in (*results, DOUBLED.infer(tmp_path / "rows.parquet").to_pylist()):
        assert [(row["out.y"], row[f"in.{name}"], row["in.x"]) for row in result] == [(2, "a", 1), (4, "b", 2)]
    of_dict = DOUBLED.infer({"x": [1.0, 2.0], name: ["a", "b"]})
    assert (list(of_dict["out.y"]), list(of_dict[f"in.{name}"])) == ([2, 4], ["a", "b"])


def test_arrow_pandas_and_dicts_give_the_same_and_come_back_as_they_are() -> None:
    table = DARK.infer(ROWS)
    assert isinstance(table, pa.Table)
    names = ["time", "in.path", "in.modification_time", "in.label", "in.number", "out.y"]
    assert table.column_names == [*names, "anomaly.count", "anomaly.first"]
    np.testing.assert_allclose(table["out.y"].to_pylist(), BRIGHTNESS, rtol=1e-6)
    assert table["anomaly.first"].to_pylist() == [True, False, False, False]
    assert table["anomaly.count"].to_pylist() == [1, 0, 0, 0]
    batch = DARK.infer(ROWS.combine_chunks().to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    frame = DARK.infer(ROWS.to_pandas().set_index("label", drop=False))
    assert isinstance(frame, pd.DataFrame)
    assert [*frame.columns] == table.column_names
    assert [*frame.index] == ROWS["label"].to_pylist()
    assert [list(value) for value in frame["out.y"]] == table["out.y"].to_pylist() == batch["out.y"].to_pylist()
    plain = DARK.infer(ROWS.select(["content", "number"]).to_pydict())
    assert plain["out.y"] == table["out.y"].to_pylist()
    assert plain["anomaly.count"] == [1, 0, 0, 0]
    json.dumps(plain)


@pytest.mark.parametrize(
    "kind", [list, np.asarray, lambda x: [np.array(row) for row in x]], ids=["lists", "array", "rows"]
)
def test_a_dict_maps_an_input_to_its_batch(kind: Any) -> None:
    x = np.arange(12, dtype="float64").reshape(2, 3, 2)
    result = SQUARES.infer({"x": kind(x.tolist())})
    assert result["out.y"] == (x * 2).tolist()
    assert result["in.x"] == x.tolist()


def test_matrices_come_back_as_arrays_in_cells_and_as_fixed_shape_tensors() -> None:
    x = np.arange(12, dtype="float64").reshape(2, 3, 2)
    frame = SQUARES.infer(pd.DataFrame({"x": x.tolist()}))
    assert frame["out.y"][1].tolist() == (x[1] * 2).tolist()
    assert frame["in.x"][0] == x[0].tolist()
    table = SQUARES.infer(pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(x)}))
    assert table.schema.field("out.y").type == pa.fixed_shape_tensor(pa.float64(), [3, 2])
    assert table["out.y"].combine_chunks().to_numpy_ndarray().tolist() == (x * 2).tolist()
    assert arrow_tensors(table.schema)["out.y"] == TensorSpec("out.y", "float64", (3, 2))


def test_what_comes_out_goes_in_again() -> None:
    first = SQUARES.infer(pa.table({"x": np.ones((2, 3, 2)).tolist()}), dataset="out", dataset_separator="_")
    again = Pipeline((PythonStep("tests.unit.features:double", SHAPE, {"x": "out_y"}),))
    assert again.infer(first)["out.y"].combine_chunks().to_numpy_ndarray().tolist() == np.full((2, 3, 2), 4).tolist()


@pytest.mark.parametrize("form", ["binary", "tensor"])
def test_a_model_reads_the_very_buffer_and_its_result_is_not_copied(form: str) -> None:
    x = np.arange(48, dtype="float32").reshape(4, 3, 4)
    spec = TensorSpec("x", "float32", (3, 4))
    column = write_tensor(x, spec) if form == "binary" else pa.FixedShapeTensorArray.from_numpy_ndarray(x)
    held = column.buffers()[2].address if form == "binary" else column.storage.values.buffers()[1].address
    outputs = {"address": {"dtype": "int64"}, "same": {"dtype": "float32", "shape": [3, 4]}}
    pipeline = Pipeline((PythonStep("tests.unit.features:address", outputs, {"x": "x"}),), inputs=(spec,))
    result = pipeline.infer(pa.table({"x": column}))
    assert result["out.address"].to_pylist() == [held] * 4
    assert result["out.same"].chunk(0).storage.values.buffers()[1].address == held
    frame = pipeline.infer(pd.DataFrame({"x": [x[0]]}))
    assert frame["out.address"][0] == frame["out.same"][0].__array_interface__["data"][0] == x.ctypes.data


def test_free_dimensions_come_back_row_by_row() -> None:
    pipeline = Pipeline((function("double", {"y": {"dtype": "float64", "shape": [None]}}),))
    ragged = [[1.0], [1.0, 2.0], [3.0]]
    doubled = [[2.0], [2.0, 4.0], [6.0]]
    assert pipeline.infer({"x": ragged})["out.y"] == doubled
    assert pipeline.infer(pa.table({"x": ragged}))["out.y"].to_pylist() == doubled
    assert [cell.tolist() for cell in pipeline.infer(pd.DataFrame({"x": ragged}))["out.y"]] == doubled


@pytest.mark.parametrize(
    ("dataset", "exclude", "names"),
    [
        ("*", (), ["time", "in.x", "out.y", "anomaly.count", "anomaly.large"]),
        (["time", "in", "out", "check_failures"], (), ["time", "in.x", "out.y", "check_failures"]),
        (["out.y"], (), ["out.y"]),
        (["anomaly"], ["anomaly.large"], ["anomaly.count"]),
        (["*"], ["in", "time", "anomaly"], ["out.y"]),
        (["*", "metadata.elapsed"], ["in"], ["time", "out.y", "anomaly.count", "anomaly.large", "metadata.elapsed"]),
        (["meta"], (), ["metadata.elapsed", "metadata.last_model", "metadata.pipeline_version"]),
        (["out", "metadata"], ["metadata.last_model"], ["out.y", "metadata.elapsed", "metadata.pipeline_version"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [dict, pd.DataFrame, pa.table], ids=["dict", "pandas", "arrow"])
def test_dataset_chooses_columns_in_every_form(dataset: Any, exclude: Any, names: list[str], form: Any) -> None:
    result = DOUBLED.infer(form({"x": [1.0, 2.0]}), dataset=dataset, dataset_exclude=exclude)
    assert list(result.column_names if form is pa.table else result) == names
    if "check_failures" in names:
        assert list(result["check_failures"].to_pylist() if form is pa.table else result["check_failures"]) == [0, 1]


def test_the_separator_stands_between_part_and_name() -> None:
    result = DOUBLED.infer({"x": [1.0]}, dataset=["*", "metadata.elapsed"], dataset_separator="_")
    assert list(result) == ["time", "in_x", "out_y", "anomaly_count", "anomaly_large", "metadata_elapsed"]


def test_metadata_says_times_and_model(tmp_path: Path) -> None:
    model = Pipeline((ModelStep(str(onnx_classifier(tmp_path / "c.onnx"))), FormatStep("logits")))
    result = model.infer({"pixels": np.zeros((2, 64), "float32")}, dataset=["out", "metadata"])
    reading, predicting, formatting = result["metadata.elapsed"][1]
    assert min(reading, predicting, formatting) > 0
    assert result["metadata.last_model"][0]["model_name"] == "c"
    assert len(result["metadata.last_model"][0]["model_sha"]) == 64
    assert result["metadata.pipeline_version"][0] == model.resolve().pipeline.version


def test_an_unknown_dataset_names_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"^\[DATASET_UNKNOWN\] dataset 'out.z' .* there are: out.y\."):
        DOUBLED.infer({"x": [1.0]}, dataset="out.z")


def test_a_few_at_a_time_and_all_at_once_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    many = image_rows(0, 10)
    whole = DARK.infer(many)["out.y"].to_pylist()
    monkeypatch.setattr("lakemill.pipelines.planning.MOST_ROWS", 4)
    again = Pipeline(DARK.steps, DARK.checks)
    assert again.infer(many)["out.y"].to_pylist() == whole
    with pytest.raises(RowError, match="row 9, decode"):
        again.infer(image_rows(0, 10, broken=[9]))


def test_the_error_names_the_row_and_the_stage() -> None:
    with pytest.raises(RowError, match=r"^\[IMAGE_TRUNCATED\] row 2, decode: the PNG ends too early"):
        DARK.infer(image_rows(0, 4, broken=[2, 3]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": [1.0, 2.0], "z": [1]}, "[INPUT_ROWS] 'z': expected 2 rows, as 'x' has; got 1. Hint: every input has"),
        ({"x": 1.0}, "[INFER_INPUT] input 'x': expected a batch, rows first; got one float. Hint: one row is a list"),
        (
            [1, 2],
            "[INFER_INPUT] infer takes a DataFrame of pandas or polars, an Arrow table, a dict or a file's path; "
            "got list.",
        ),
        (
            {"z": [1.0]},
            "[MODEL_INPUT_MISSING] function 'tests.unit.features:double' needs input 'x'; the table has: z.",
        ),
        ({"x": pd.Timestamp("2026-01-01", tz="UTC").to_numpy().reshape(1)}, "[COLUMN_TYPE] function"),
        (pd.DataFrame({"x": pd.to_datetime(["2026-01-01"], utc=True)}), "[COLUMN_TYPE] function"),
        ({"x": [1.0, None]}, "[INPUT_NULL] row 1, cast: x: expected x float64, got null."),
        ({"x": [1.0, "Bob"]}, "[INPUT_TYPE] row 1, cast: x: expected x float64, got str."),
        ({"x": [[1.0, 2.0], [3.0, "Bob"]]}, "[INPUT_TYPE] row 1, cast: x: expected x float64[?], got text."),
        ({"x": [[[1.0], [2.0, 3.0]]]}, "[TENSOR_RAGGED] row 0, cast: x: expected lists of one size, got 1 and 2."),
    ],
    ids=str,
)
def test_bad_input_is_a_clear_error(data: Any, message: str) -> None:
    with pytest.raises(LakemillError) as caught:
        DOUBLED.infer(data)
    assert str(caught.value).startswith(message)
    assert "Bob" not in str(caught.value)


def test_dates_are_wanted_as_strings() -> None:
    with pytest.raises(TableError, match=r"holds timestamp\[us, tz=UTC\]. Hint: give dates as strings"):
        DOUBLED.infer(pa.table({"x": pa.array([0], pa.timestamp("us", "UTC"))}))


def test_no_rows_give_the_same_columns() -> None:
    assert DARK.infer(ROWS.slice(0, 0)).schema == DARK.infer(ROWS).schema
    assert [*DARK.infer(ROWS.slice(0, 0).to_pandas()).columns] == DARK.infer(ROWS).column_names


def test_scores_of_a_table_are_formatted() -> None:
    result = Pipeline((FormatStep("s", labels=("a", "b")),)).infer({"s": np.array([[0.2, 0.8], [0.9, 0.1]])})
    assert result["out.label"] == ["b", "a"]


def test_files_of_every_format(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0]})
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write(table)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as stream:
        stream.write(table)
    parquet.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "x.df.json").write_text('[{"x": 1.0}, {"x": 2.0}]')
    (tmp_path / "x.json").write_text('{"x": [1.0, 2.0]}')
    (tmp_path / "records.json").write_text('[{"x": 1.0}, {"x": 2.0}]')
    for name in ("file.arrow", "stream.arrow", "x.parquet"):
        assert DOUBLED.infer(tmp_path / name)["out.y"].to_pylist() == [2, 4]
    assert DOUBLED.infer(str(tmp_path / "x.df.json"))["out.y"].tolist() == [2, 4]
    for name in ("x.json", "records.json"):
        assert DOUBLED.infer(tmp_path / name)["out.y"] == [2, 4]
    (tmp_path / "dark.png").write_bytes(png(3))
    result = Pipeline(DARK.steps).infer(tmp_path / "dark.png")
    np.testing.assert_allclose(result["out.y"], [BRIGHTNESS[3]], rtol=1e-6)
    assert result["in.path"] == [str(tmp_path / "dark.png")]


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.csv").write_text("x")
    for name, code in (("x.json", "FILE_CONTENT"), ("x.csv", "FILE_FORMAT"), ("y.json", "FILE_NOT_FOUND")):
        with pytest.raises(ConfigError, match=code):
            DOUBLED.infer(tmp_path / name)


def test_a_call_that_takes_too_long_is_given_up() -> None:
    slow = Pipeline((function("sleep"),))
    assert slow.infer({"x": np.array([0.0], "float32")}, timeout=30)["out.y"] == [0]
    with pytest.raises(RunError, match=r"^\[INFER_TIMEOUT\] no result after 0.05 s"):
        slow.infer({"x": np.array([2.0], "float32")}, timeout=0.05)


def test_many_at_a_time_keep_their_order_and_a_failed_one_its_place() -> None:
    items = [{"x": np.array([value], "float32")} for value in (0.3, 0.0, -1.0, 0.1)]
    slow = Pipeline((function("sleep"),))
    started = time.monotonic()
    for results in (
        slow.parallel_infer(items, num_parallel=4, retries=1),
        asyncio.run(slow.parallel_infer_async(items, num_parallel=2)),
    ):
        assert [result["out.y"][0] for place, result in enumerate(results) if place != 2] == pytest.approx(
            [0.3, 0, 0.1]
        )
        assert isinstance(results[2], RowError)
    assert time.monotonic() - started < 30
    given_up = slow.parallel_infer([{"x": np.array([2.0], "float32")}, items[1]], timeout=0.2)
    assert isinstance(given_up[0], RunError)
    assert given_up[1]["out.y"] == [0]


def test_a_pipeline_that_has_run_is_still_only_a_value() -> None:
    DOUBLED.infer({"x": [1.0]})
    assert pickle.loads(pickle.dumps(DOUBLED)) == DOUBLED  # noqa: S301  # our own bytes
    assert "_inferences" not in pickle.loads(pickle.dumps(DOUBLED)).__dict__  # noqa: S301


def test_an_onnx_file_needs_neither_spark_nor_mlflow_nor_pandas(tmp_path: Path) -> None:
    model = onnx_classifier(tmp_path / "c.onnx")
    code = f"""
import sys, lakemill
result = lakemill.Pipeline([lakemill.ModelStep({str(model)!r})]).infer({{"pixels": [[0.0] * 64]}})
assert len(result["out.logits"][0]) == 3
print([name for name in ("pyspark", "mlflow", "pandas", "polars", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_check_over_outputs_needs_no_column_but_the_image() -> None:
    pipeline = Pipeline(
        (ImageStep(mode="L", size=(1, 1), layout="flat", output="x"), function("first", {"y": {}})),
        (Check("dark", "out.y < 0.1"),),
    )
    assert pipeline.infer({"content": ROWS["content"].to_pylist()}, dataset="anomaly.dark")["anomaly.dark"] == [
        True,
        True,
        False,
        False,
    ]
