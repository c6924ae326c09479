"""The one inner loop: a row out for each row in, in order, in batches that respect both limits."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import Check, ImageStep, ModelStep, PythonStep
from lakemill_udfs.worker import fill, load_ahead, predict_batches, predict_group
from tests.lake import factor_model, image_rows
from tests.unit.plans import function, plan_for

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float32())])


def record(start: int, rows: int) -> pa.RecordBatch:
    ids = range(start, start + rows)
    return pa.record_batch(
        [pa.array(ids, pa.int64()), pa.array([-1.0 if i % 5 == 0 else i for i in ids], pa.float32())], schema=SCHEMA
    )


def records(sizes: list[int]) -> list[pa.RecordBatch]:
    return [record(sum(sizes[:at]), size) for at, size in enumerate(sizes)]


def scored(plan: PredictPlan, batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return list(predict_batches(plan, batches))


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 12), st.integers(1, 150))
def test_batches_fill_up_and_keep_to_both_limits(sizes: list[int], max_rows: int, max_bytes: int) -> None:
    tables = list(fill(records(sizes), max_rows, max_bytes))
    assert [i for table in tables for i in table["id"].to_pylist()] == list(range(sum(sizes)))
    for table in tables:
        assert 0 < table.num_rows <= max_rows
        assert table.num_rows == 1 or table.num_rows * 12 <= max_bytes
    for table in tables[:-1]:  # none is smaller than it has to be
        assert table.num_rows == max_rows or (table.num_rows + 1) * 12 > max_bytes


@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), max_size=6), st.integers(1, 9))
def test_every_row_comes_out_once_and_in_order(sizes: list[int], batch_rows: int) -> None:
    plan = plan_for([function("refuse_negative")], SCHEMA, passthrough=["id"], batch_rows=batch_rows, task_metrics=True)
    batches = scored(plan, records(sizes))
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["id"] for row in rows] == list(range(sum(sizes)))
    for row in rows:
        failed = row["id"] % 5 == 0
        assert (row["out"] is None) == (row["anomaly"] is None) == (row["error"] is not None) == failed
        assert failed or row["out"] == {"y": row["id"]}
    tasks = [row["_task"] for row in rows]
    assert not any(tasks[:-1])
    if rows:
        assert tasks[-1]["rows"] == len(rows)
        assert tasks[-1]["rows_error"] == sum(row["error"] is not None for row in rows)
        assert tasks[-1]["batches"] == len(batches)
        assert tasks[-1]["batch_rows"] == max(batch.num_rows for batch in batches)


def test_columns_are_as_the_plan_says() -> None:
    plan = plan_for([function("double")], SCHEMA, passthrough=["id"], parts=("time", "in", "out", "anomaly"))
    (batch,) = scored(plan, [record(1, 2)])
    assert batch.schema.names == ["id", "time", "in", "out", "anomaly", "error", "metadata"]
    assert batch.schema.field("out").type == plan.out_type
    assert batch.schema.field("out").type.field("y").metadata[b"lakemill.dtype"] == b"float32"
    row = batch.to_pylist()[1]
    assert row["in"] == {"x": 2.0}
    assert row["anomaly"] == {"count": 0}
    assert row["time"].utcoffset().total_seconds() == 0
    assert row["metadata"]["pipeline_version"] == plan.pipeline.version
    assert len(row["metadata"]["elapsed_ns"]) == 1


def test_a_task_whose_rows_are_all_bad_writes_them_all() -> None:
    step = ImageStep(size=(2, 2), mode="L")
    table = image_rows(0, 3, broken=[0, 1, 2])
    later = PythonStep("tests.unit.features:double", {"y": {"dtype": "float32", "shape": [1, 2, 2]}}, {"x": "image"})
    plan = plan_for([step, later], table.schema, passthrough=["path"])
    rows = pa.Table.from_batches(scored(plan, table.to_batches())).to_pylist()
    assert [row["error"]["code"] for row in rows] == ["IMAGE_TRUNCATED"] * 3
    assert [row["error"]["stage"] for row in rows] == ["decode"] * 3
    assert [row["out"] for row in rows] == [None] * 3


def test_a_row_that_a_check_cannot_judge_fails_alone() -> None:
    schema = pa.schema([*SCHEMA, ("text", pa.string())])
    check = Check("odd", "CAST(in.text AS INT) > 2")
    plan = plan_for([function("refuse_negative")], schema, [check], passthrough=["id", "text"])
    columns = [[1, 2, 3, 4, 5], [1.0, -1.0, 3.0, 4.0, 5.0], ["1", "2", "secret", "4", None]]
    (batch,) = scored(plan, [pa.record_batch(columns, schema=schema)])
    rows = batch.to_pylist()
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "MODEL_FAILED", "CHECK_FAILED", None, None]
    assert [row["out"] and row["out"]["y"] for row in rows] == [1, None, None, 4, 5]
    assert [row["anomaly"] and row["anomaly"]["odd"] for row in rows] == [False, None, None, True, False]
    assert "secret" not in str(batch["error"].to_pylist())


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("out.typo > 1", r"\[CHECK_FIELD\] check 'c' reads out.typo; there are: y"),
        ("in.name = 'a'", r"\[CHECK_FIELD\] check 'c' reads in.name; there are: id, x"),
        ("out.y + 1", r"\[CHECK_TYPE\] check 'c' is no condition: it gives Float"),
        ("out", r"\[CHECK_TYPE\] check 'c' is no condition: it gives Struct"),
        ("out.y > 'a'", r"\[CHECK_TYPE\] check 'c' does not fit what it reads .*out.y float"),
        ("now() > '2020-01-01'", r"\[CHECK_EXPRESSION\] check 'c' is another one each time"),
    ],
)
def test_a_check_that_does_not_fit_is_refused_before_anything_runs(expr: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_for([function("double")], SCHEMA, [Check("c", expr)], passthrough=["id"])


def test_checks_read_carried_columns_and_flag_rows() -> None:
    plan = plan_for([function("double")], SCHEMA, [Check("big", "out.y > 4 AND in.id < 4")], passthrough=["id"])
    (batch,) = scored(plan, [record(1, 4)])
    assert batch["anomaly"].to_pylist() == [{"count": int(i == 3), "big": i == 3} for i in (1, 2, 3, 4)]


def test_errors_hold_no_row_data() -> None:
    table = pa.table({"x": pa.array([-987654.0], pa.float32())})
    for name in ("refuse_negative", "drop_negative"):
        (batch,) = scored(plan_for([function(name)], table.schema), table.to_batches())
        assert "987654" not in str(batch["error"].to_pylist())


def test_a_broken_contract_stops_the_task() -> None:
    with pytest.raises(ModelError, match="OUTPUT_SHAPE"):
        scored(plan_for([function("wide")], SCHEMA), [record(0, 3)])


def test_a_group_is_scored_whole_and_fails_whole() -> None:
    plan = plan_for([function("refuse_negative")], SCHEMA, passthrough=["id"])
    good = predict_group(plan, pa.Table.from_batches([record(1, 4)]))
    assert good["error"].null_count == 4
    bad = predict_group(plan, pa.Table.from_batches([record(0, 4)]))
    assert bad["error"].null_count == 0
    assert bad["out"].null_count == 4


def test_no_rows_give_no_batch_and_a_group_without_rows_has_the_columns() -> None:
    plan = plan_for([function("double")], SCHEMA, [Check("big", "out.y > 4")], passthrough=["id"])
    assert scored(plan, []) == scored(plan, [record(0, 0)]) == []
    assert predict_group(plan, SCHEMA.empty_table()).schema.names == [
        "id",
        "time",
        "out",
        "anomaly",
        "error",
        "metadata",
    ]


def test_the_shipped_function_is_pickled_by_name() -> None:
    plan = plan_for([function("double")], SCHEMA, passthrough=["id"])
    shipped: Any = pickle.dumps(partial(predict_batches, plan))
    assert len(shipped) < 2000
    assert [batch.num_rows for batch in pickle.loads(shipped)([record(0, 3)])] == [3]  # noqa: S301  # made one line above


def test_single_numbers_are_scored_in_large_batches_and_text_is_not() -> None:
    assert plan_for([function("double")], SCHEMA).batch_rows == 65_536
    text = plan_for([function("double", {"y": {"dtype": "string"}})], pa.schema([("x", pa.string())]))
    assert text.batch_rows == 4_096


def test_what_is_the_same_in_each_row_is_so_whatever_sizes_batches_have() -> None:
    plan = plan_for([function("double")], SCHEMA, passthrough=["id"], batch_rows=7)
    batches = scored(plan, records([3, 7, 1, 20]))
    metadata = [row for batch in batches for row in batch["metadata"].to_pylist()]
    assert len(metadata) == 31
    assert {row["pipeline_version"] for row in metadata} == {plan.pipeline.version}
    assert all(len(row["elapsed_ns"]) == 1 and row["models"] == [] for row in metadata)


def test_rows_of_a_light_plan_carry_only_what_differs() -> None:
    plan = replace(plan_for([function("double")], SCHEMA, passthrough=["id"], batch_rows=7), is_light=True)
    whole, light = (scored(one, records([3, 7])) for one in (replace(plan, is_light=False), plan))
    assert {name for batch in light for name in batch["metadata"].type.names} == {"elapsed_ns"}
    assert [row for batch in light for row in batch["out"].to_pylist()] == [
        row for batch in whole for row in batch["out"].to_pylist()
    ]
    constant = plan.constant_metadata | {"input_sha256": None}
    for row in (row for batch in whole for row in batch["metadata"].to_pylist()):
        assert {name: value for name, value in row.items() if name != "elapsed_ns"} == constant


def test_the_first_task_says_what_a_model_took_that_was_loaded_before(tmp_path: Path) -> None:
    factor_model(tmp_path / "twice.onnx", 2)
    schema = pa.schema([("sales", pa.float32())])
    plan = replace(plan_for([ModelStep(str(tmp_path / "twice.onnx"))], schema, batch_rows=4), task_metrics=True)
    rows = pa.record_batch([pa.array([1.0, 2.0], pa.float32())], schema)
    assert list(load_ahead(plan, iter([rows]))) == []
    (tmp_path / "twice.onnx").unlink()  # what is loaded needs it no more
    first, second = (list(predict_batches(plan, [rows]))[-1].to_pylist()[-1] for _ in range(2))
    assert first["out"]["demand"] == second["out"]["demand"] == 4
    assert (first["_task"]["models_loaded"], second["_task"]["models_loaded"]) == (1, 0)
    assert first["_task"]["model_load_seconds"] > 0
