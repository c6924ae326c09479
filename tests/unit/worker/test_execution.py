"""A batch that raises is halved until the bad rows are alone; what no row is to blame for stops the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakemill_udfs.batch import Batch
from lakemill_udfs.errors import ModelError, RunError, SetupError
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.step_call import StepCall, checked
from lakemill_udfs.steps.declared import FormatStep, PythonStep
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import StepWiring
from lakemill_udfs.worker import columns_of
from tests.unit.plans import function, plan_for


def run(step: PythonStep, values: Any, *later: Any, **options: Any) -> Batch:
    table = pa.table({"x": values if isinstance(values, pa.Array) else pa.array(values, pa.float32())})
    return PipelineRunner(plan_for([step, *later], table.schema, batch_rows=7), **options).run(
        columns_of(table), table.num_rows
    )


@settings(max_examples=40)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@pytest.mark.parametrize(
    ("name", "code"), [("refuse_negative", "MODEL_FAILED"), ("drop_negative", "OUTPUT_ROWS")], ids=str
)
def test_exactly_the_bad_rows_fail(name: str, code: str, case: tuple[int, set[int]]) -> None:
    rows, bad = case
    batch = run(function(name), [-1.0 - row if row in bad else float(row) for row in range(rows)])
    assert set(batch.failures) == bad
    assert {error.code for _, error in batch.failures.values()} <= {code}
    assert batch.active.tolist() == [row for row in range(rows) if row not in bad]
    assert batch.values["y"].tolist() == batch.active.tolist()


def test_a_failure_names_its_type_and_no_value() -> None:
    stage, error = run(function("refuse_negative"), [1, -77]).failures[1]
    assert stage == "predict"
    assert str(error) == "[MODEL_FAILED] the step raised ValueError for this row."


def test_a_whole_group_fails_as_one() -> None:
    batch = run(function("refuse_negative"), [1, -1, 2], bisect=False)
    assert sorted(batch.failures) == [0, 1, 2]


def test_later_steps_run_when_no_row_is_left() -> None:
    step = function("refuse_negative", {"y": {"dtype": "float32", "shape": [2]}})
    batch = run(step, [-1, -2], FormatStep("y"))
    assert len(batch.failures) == 2
    assert batch.values["label"].shape == (0,)
    assert batch.values["label"].dtype == "int64"
    assert len(batch.elapsed_ns) == 2


def test_out_of_memory_halves_the_batches_that_follow() -> None:
    table = pa.table({"x": pa.array(range(12), pa.float32())})
    runner = PipelineRunner(plan_for([function("at_most_two")], table.schema, batch_rows=12))
    batch = runner.run(columns_of(table), table.num_rows)
    assert batch.values["y"].tolist() == list(range(12))
    assert not batch.failures
    sizes: list[int] = []
    runner.observe_last(lambda result: sizes.append(len(result["y"])))
    runner.run(columns_of(table), table.num_rows)
    assert max(sizes) <= 2


def test_no_memory_for_one_row_stops_the_run() -> None:
    with pytest.raises(RunError, match=r"^\[OUT_OF_MEMORY\]"):
        run(function("never_enough"), [1, 2, 3])


def test_what_is_no_rows_fault_stops_the_run_with_its_class_and_never_its_text() -> None:
    with pytest.raises(RunError, match=r"^\[STEP_ENVIRONMENT\] a step raised ConnectionError") as error:
        run(function("service_is_away"), [1, 2])
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    with pytest.raises(RunError, match=r"^\[STEP_ENVIRONMENT\] a step raised ModuleNotFoundError") as error:
        run(function("imports_what_a_row_says"), [1, 2])
    assert "secret" not in str(error.value)
    with pytest.raises(SetupError, match=r"^\[WORKER_MODULE_MISSING\] .*'module_that_is_missing'"):
        run(function("imports_missing"), [1, 2])


@pytest.mark.parametrize(
    ("name", "outputs", "code"),
    [
        ("says_out_of_memory", {}, "MODEL_FAILED"),
        ("speaks_as_lakemill", {}, "MODEL_FAILED"),
        ("integers_unless_negative", {"dtype": "int64"}, "OUTPUT_DTYPE"),
        ("wider_if_negative", {"shape": [2]}, "OUTPUT_SHAPE"),
        ("nothing_if_negative", {}, "FUNCTION_RESULT"),
        ("masked_if_negative", {}, "OUTPUT_MASKED"),
        ("surrogate_if_negative", {"dtype": "string"}, "OUTPUT_TEXT"),
    ],
)
def test_one_row_never_decides_for_the_others(name: str, outputs: dict[str, Any], code: str) -> None:
    batch = run(function(name, {"y": {"dtype": "float32"} | outputs}), [1, -2, 3, 4, 5, 6, 7, 8, -9])
    assert {row: error.code for row, (_, error) in batch.failures.items()} == {1: code, 8: code}
    assert "secret" not in str(batch.failures)
    assert len(batch.values["y"]) == 7


def test_a_lone_row_that_breaks_the_declaration_stops_no_run() -> None:
    batch = run(function("wider_if_negative", {"y": {"dtype": "float32", "shape": [2]}}), [-1])
    assert [error.code for _, error in batch.failures.values()] == ["OUTPUT_SHAPE"]


def test_a_function_that_writes_to_its_input_changes_nothing_outside() -> None:
    given = np.array([1, 2, 3], "float32")
    runner = PipelineRunner(plan_for([function("add_in_place")], pa.schema([("x", pa.float32())])))
    for _ in range(2):
        batch = runner.run({"x": given}, 3)
        assert batch.values["y"].tolist() == [101, 102, 103]
        assert batch.values["x"].tolist() == given.tolist() == [1, 2, 3]


def test_a_frame_that_was_sorted_gives_each_row_its_own_result() -> None:
    assert run(function("sorted_frame"), [2, 3, 1, 5, 4]).values["y"].tolist() == [2, 3, 1, 5, 4]


def test_a_function_may_use_one_array_for_all_its_results() -> None:
    batch = run(function("reuse_one_buffer"), list(range(30)))
    assert batch.values["y"].tolist() == list(range(30))


def test_as_many_values_as_rows_by_coincidence_are_no_result() -> None:
    with pytest.raises(ModelError, match=r"^\[OUTPUT_ROWS\] y: one row went in, 3 came out"):
        run(function("three_values"), [1, 2, 3])


@pytest.mark.parametrize("rows", [3, 7, 20])
def test_a_model_that_reduces_over_its_rows_gives_no_row_a_result(rows: int) -> None:
    """Each row alone would pass, with a sum of itself."""
    with pytest.raises(ModelError, match=r"^\[OUTPUT_ROWS\] y: \d rows went in, 1 came out"):
        run(function("total"), [1] * rows)


def test_a_value_that_does_not_fit_the_next_step_fails_its_row() -> None:
    call = StepCall(
        lambda inputs: {"y": inputs["n"]},
        StepWiring((("n", "wide"),), {"n": "int32"}, ((TensorSpec("y", "int32"), "y"),)),
        "predict",
        8,
    )
    outputs, failed = call.run({"n": np.array([1, 2**31, 3])}, [], 3)
    assert outputs["y"].tolist() == [1, 3]
    assert {place: error.code for place, error in failed.items()} == {1: "INPUT_CAST"}


def test_rows_whose_free_dimension_differs_keep_each_their_own() -> None:
    step = function("length_of_first", {"y": {"dtype": "float32", "shape": [None]}})
    batch = run(step, [2.0] * 7 + [3.0] * 2)
    assert not batch.failures
    assert [row.shape for row in batch.values["y"]] == [(2,)] * 7 + [(3,)] * 2


def test_a_result_of_another_shape_or_dtype_stops_the_run_with_both() -> None:
    with pytest.raises(ModelError, match=r"^\[OUTPUT_SHAPE\] y: expected \(3\), got \(3, 2\)"):
        run(function("wide"), [1, 2, 3])
    with pytest.raises(ModelError, match=r"^\[OUTPUT_DTYPE\] y: expected int64, got float32"):
        run(function("double", {"y": {"dtype": "int64"}}), [1, 2, 3])
    with pytest.raises(ModelError, match=r"^\[OUTPUT_DTYPE\] y: expected string, got float32"):
        run(function("double", {"y": {"dtype": "string"}}), [1, 2, 3])
    with pytest.raises(ModelError, match=r"^\[OUTPUT_MISSING\] the step's result has no 'z'; it has: y"):
        run(function("double", {"z": {}}), [1, 2, 3])


def test_text_may_be_missing_but_is_never_a_number() -> None:
    words = np.array(["a", None], dtype=object)
    assert checked({"y": words}, TensorSpec("y", "string"), 2) is words
    assert checked({"y": np.array(["a"])}, TensorSpec("y", "string"), 1).tolist() == ["a"]
    with pytest.raises(ModelError, match="OUTPUT_DTYPE"):
        checked({"y": np.array([1, "a"], dtype=object)}, TensorSpec("y", "string"), 2)


def test_a_column_that_cannot_be_read_fails_at_cast_and_the_next_column_keeps_its_rows() -> None:
    step = PythonStep("tests.unit.features:double", {"y": {"dtype": "float64"}}, {"x": "a", "z": "b"})
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(6.0).reshape(3, 2))
    table = pa.table({"a": [1.0, None, 3.0], "b": tensor})
    batch = PipelineRunner(plan_for([step], table.schema)).run(columns_of(table), table.num_rows)
    assert [(row, stage) for row, (stage, _) in batch.failures.items()] == [(1, "cast")]
    assert batch.values["y"].tolist() == [2, 6]
    assert batch.values["b"].tolist() == [[0, 1], [4, 5]]
