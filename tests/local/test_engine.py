"""The local engine behind the protocol: real pipelines over real tables."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from sklearn.ensemble import HistGradientBoostingRegressor

from lakemill import PredictConfig, predict_table
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.engine import Following, Once, Slice, Transaction, Watch
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.local.work import workers_for
from lakemill.engines.relations import Rows
from lakemill.engines.schemas import predictions_schema
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.errors import RunError, SetupError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import PredictPlan, Provenance
from lakemill_udfs.tensors.spec import arrow_tensors
from tests.lake import image_rows, onnx_classifier, steps
from tests.unit.plans import function, plan_for

OWN = {"metadata.job": "it's mine"}
MINE = r"metadata.job = 'it\'s mine'"


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    with LocalEngine() as engine:
        yield engine


@pytest.fixture
def images(tmp_path: Path) -> str:
    table = str(tmp_path / "images")
    for start in (0, 10):
        write_deltalake(table, image_rows(start, 10, broken=[3]), mode="append")
    return table


@pytest.fixture
def plan(tmp_path: Path) -> PredictPlan:
    pipeline = Pipeline.from_dict({"steps": steps(onnx_classifier(tmp_path / "model.onnx"))})
    plan = make_plan(resolve(pipeline), arrow_tensors(image_rows(0, 1).schema), passthrough=("path", "label"))
    return replace(plan, task_metrics=True, provenance=Provenance(job=OWN["metadata.job"], batch_id=1))


def rows_of(engine: LocalEngine, table: str) -> Rows:
    snapshot = engine.snapshot(table)
    assert snapshot is not None
    return engine.rows(snapshot)


def paths(rows: Rows) -> list[int]:
    return sorted(int(path[4:8]) for path in rows.to_arrow()["path"].to_pylist())


def test_images_to_predictions_in_one_commit(
    engine: LocalEngine, images: str, plan: PredictPlan, tmp_path: Path
) -> None:
    output = str(tmp_path / "predictions")
    rows = rows_of(engine, images)
    schema = predictions_schema(plan, rows.schema)
    assert engine.make(output, schema)
    with engine.scored(rows, plan, into=output) as scored:
        assert (scored.rows, scored.rows_error) == (20, 1)
        assert sum(task["rows"] for task in scored.tasks) == 20
        assert engine.append(scored, output, Transaction("job", 0))
    with engine.scored(rows, plan, into=output) as scored:
        assert not engine.append(scored, output, Transaction("job", 0))
    table = DeltaTable(output)
    assert (table.version(), len(table.file_uris())) == (1, 1)
    assert len(list(Path(output).glob("*.parquet"))) == len(table.file_uris())  # the second run left nothing behind
    there = pa.schema(table.schema().to_arrow())
    assert there.equals(schema)
    assert there.field("out").type.field("probability").metadata == {
        b"lakemill.dtype": b"float32",
        b"lakemill.shape": b"[]",
        b"lakemill.format": b"1",
    }
    found = rows_of(engine, output)
    assert paths(found) == list(range(20))
    errors = found.where("error IS NOT NULL").tally(["error.stage", "metadata.job"])
    assert errors == [{"error.stage": "decode", "metadata.job": "it's mine", "rows": 1}]


def test_committed_files_stay_and_others_go_when_a_run_fails(
    engine: LocalEngine, images: str, plan: PredictPlan, tmp_path: Path
) -> None:
    output = str(tmp_path / "predictions")
    rows = rows_of(engine, images)
    engine.make(output, predictions_schema(plan, rows.schema))

    def score_and_fail(*, commit: bool) -> None:
        with engine.scored(rows, plan, into=output) as scored:
            if commit:
                engine.append(scored, output)
            raise RunError("LATER", "after the commit.")

    for commit in (False, True):
        with pytest.raises(RunError, match="LATER"):
            score_and_fail(commit=commit)
        assert len(list(Path(output).glob("*.parquet"))) == int(commit)
    assert rows_of(engine, output).to_arrow().num_rows == 20


def test_rows_of_one_job_are_replaced_merged_and_deleted(
    engine: LocalEngine, images: str, plan: PredictPlan, tmp_path: Path
) -> None:
    output = str(tmp_path / "predictions")
    rows = rows_of(engine, images)
    other = replace(plan, provenance=Provenance(job="other"))
    for some in (plan, other):
        with engine.scored(rows.where("number < 3"), some, into=output) as scored:
            engine.append(scored, output)
    with engine.scored(rows.where("number BETWEEN 2 AND 4"), plan, into=output) as scored:
        engine.merge(
            scored,
            output,
            ["path"],
            Transaction("job", 1),
            own=OWN,
            gone=engine.given(pa.table({"path": ["img/0000.png"]})),
        )
    assert paths(rows_of(engine, output).where(MINE)) == [1, 2, 3, 4]
    with engine.scored(rows.where("number > 17"), plan, into=output) as scored:
        engine.replace(scored, output, MINE, Transaction("job", 2))
    assert paths(rows_of(engine, output).where(MINE)) == [18, 19]
    assert engine.delete_orphans(output, OWN, rows.where("number = 18"), ["path"]) == 1
    assert paths(rows_of(engine, output).where(MINE)) == [18]
    assert engine.delete(output, MINE) == 1
    assert paths(rows_of(engine, output)) == [0, 1, 2]
    assert engine.optimize(output)["files_removed"] >= 0
    assert engine.vacuum(output)["version"] >= 5


def test_outputs_that_a_new_model_has_are_added(engine: LocalEngine, tmp_path: Path) -> None:
    source, output = str(tmp_path / "source"), str(tmp_path / "output")
    write_deltalake(source, pa.table({"id": [1, 2], "x": pa.array([1.0, 2.0], pa.float32())}))
    rows = rows_of(engine, source)
    one = function("double")
    for made in ((one,), (one, replace(one, function="tests.unit.features:zeros", outputs={"z": one.outputs["y"]}))):
        with engine.scored(rows, plan_for(made, rows.schema, passthrough=("id",)), into=output) as scored:
            engine.append(scored, output)
    found = sorted(rows_of(engine, output).to_arrow()["out"].to_pylist(), key=str)
    assert found == [{"y": 2.0, "z": 0.0}, {"y": 2.0, "z": None}, {"y": 4.0, "z": 0.0}, {"y": 4.0, "z": None}]


@pytest.mark.parametrize("forced", ["threads", "processes"])
def test_threads_and_processes_give_the_same(plan: PredictPlan, images: str, tmp_path: Path, forced: str) -> None:
    with LocalEngine(forced=forced) as engine:
        told: list[int] = []
        engine.on_rows = told.append
        small = replace(plan, batch_rows=4)
        with engine.scored(rows_of(engine, images), small) as scored:
            found = scored.to_arrow().sort_by("path")
            assert len({task["pid"] for task in scored.tasks}) == (2 if forced == "processes" else 1)
        assert sum(told) == 20
        assert found["path"].to_pylist() == [f"img/{number:04d}.png" for number in range(20)]
        assert found["error"].null_count == 19


def test_workers_are_chosen_by_what_the_pipeline_does(plan: PredictPlan) -> None:
    assert workers_for(plan, 2).kind == "threads"
    python = plan_for([function("double")], pa.schema([("x", pa.float32())]))
    assert workers_for(python, 2).kind == "processes"
    assert workers_for(python, 2, "threads").kind == "threads"


@pytest.mark.parametrize(("forced", "is_apart"), [("auto", False), ("processes", True)])
def test_few_rows_are_scored_by_another_process_if_the_job_asks_for_it(
    tmp_path: Path, forced: str, is_apart: bool
) -> None:
    write_deltalake(tmp_path / "rows", pa.table({"id": [1, 2], "x": [1.0, 2.0]}))
    step = {"function": "tests.local.job_functions:who", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    config = PredictConfig.load(
        source={"table": str(tmp_path / "rows"), "key": ["id"]},
        pipeline={"steps": [{"python": step}]},
        output={"table": str(tmp_path / "predictions")},
        engine={"name": "local", "workers": forced},
    )
    assert predict_table(config).rows == 2
    processes = DeltaTable(tmp_path / "predictions").to_pyarrow_table()["out"].to_pylist()
    assert ({row["y"] for row in processes} != {float(os.getpid())}) is is_apart


def test_threads_that_share_boosted_trees_give_what_the_estimator_gives(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values, rows = random.random((200, 2)), 3000
    trees = HistGradientBoostingRegressor(max_iter=5).fit(values, values.sum(axis=1))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(trees))
    inputs = random.random((rows, 2))
    for part in np.array_split(np.arange(rows), 4):
        write_deltalake(str(tmp_path / "rows"), pa.table({"id": part, "inputs": list(inputs[part])}), mode="append")
    model = {"uri": str(tmp_path / "model.pkl"), "trust": True, "outputs": {"predictions": {"dtype": "float64"}}}
    config = PredictConfig.load(
        None,
        (),
        name="trees",
        source={"table": str(tmp_path / "rows"), "key": ["id"]},
        pipeline={"steps": [{"model": model}]},
        output={"table": str(tmp_path / "predictions")},
        engine={"name": "local", "batch_rows": 100},
    )
    told: list[str] = []
    result = predict_table(config, progress=told.append)
    assert (result.rows, result.rows_error) == (rows, 0)
    assert len({task["pid"] for task in result.tasks}) == 1, "one process, whose threads share the model"
    found = DeltaTable(str(tmp_path / "predictions")).to_pyarrow_table().sort_by("id")
    assert found["out"].combine_chunks().field(0).to_pylist() == trees.predict(inputs).tolist()


def following(engine: LocalEngine, source: str, checkpoint: Path, **options: object) -> Following:
    snapshot = engine.snapshot(source)
    assert snapshot is not None
    usual: dict[str, object] = {"where": None, "changes": False, "max_bytes": 2**30}
    return Following(snapshot, name="job", run_id="r", checkpoint=Checkpoint(str(checkpoint)), **(usual | options))  # type: ignore[arg-type]


def seen(engine: LocalEngine, what: Following) -> list[tuple[int, list[int], int, bool]]:
    found: list[tuple[int, list[int], int, bool]] = []
    engine.follow(what, lambda s: found.append((s.batch_id, paths(s.rows), s.version, s.is_snapshot)), Watch())
    return found


def test_only_what_is_new_comes_again(engine: LocalEngine, images: str, tmp_path: Path) -> None:
    assert seen(engine, following(engine, images, tmp_path / "c")) == [(0, list(range(20)), 1, True)]
    assert seen(engine, following(engine, images, tmp_path / "c")) == []
    write_deltalake(images, image_rows(20, 2), mode="append")
    assert seen(engine, following(engine, images, tmp_path / "c", where="number > 20")) == [(1, [21], 2, False)]


@pytest.mark.parametrize("max_bytes", [1, 2**30])
def test_a_slice_that_failed_comes_again_with_the_same_rows(
    engine: LocalEngine, images: str, tmp_path: Path, max_bytes: int
) -> None:
    slices: list[tuple[int, list[int]]] = []

    def fails_first(new: Slice) -> None:
        slices.append((new.batch_id, paths(new.rows)))
        if len(slices) == 1:
            raise RunError("STORAGE_READ", "once.")

    with pytest.raises(RunError):
        engine.follow(following(engine, images, tmp_path / "c", max_bytes=max_bytes), fails_first, Watch())
    write_deltalake(images, image_rows(20, 2), mode="append")  # new rows are of another slice
    engine.follow(following(engine, images, tmp_path / "c", max_bytes=max_bytes), fails_first, Watch())
    first, second, *rest = slices
    assert first == second
    assert first == (0, list(range(10)) if max_bytes == 1 else list(range(20)))
    assert sorted(number for _, numbers in (second, *rest) for number in numbers) == list(range(22))
    assert [batch_id for batch_id, _ in rest] == list(range(1, len(rest) + 1))


def test_changes_come_to_one_state_a_key(engine: LocalEngine, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    rows = pa.table({"id": [1, 2, 3, 4], "x": pa.array([1, 2, 3, 4], pa.float32())})
    write_deltalake(source, rows, configuration={"delta.enableChangeDataFeed": "true"})
    seen_states: list[tuple[dict[int, float], list[int]]] = []
    plan = replace(
        plan_for([function("double")], rows.schema, passthrough=("id",)), provenance=Provenance(source_version=99)
    )
    versions: dict[int, int] = {}

    def on_slice(new: Slice) -> None:
        nothing = engine.given(rows.slice(0, 0))
        latest = engine.latest(new.rows, ["id"], "x < 50", nothing)
        with engine.scored(latest.rows, plan) as scored:
            found = scored.to_arrow().to_pylist()
        versions.update({row["id"]: row["metadata"]["source_version"] for row in found})
        seen_states.append(
            ({row["id"]: row["out"]["y"] for row in found}, sorted(latest.gone.to_arrow()["id"].to_pylist()))
        )

    what = following(engine, source, tmp_path / "c", changes=True)
    engine.follow(what, on_slice, Watch())
    table = DeltaTable(source)
    table.update({"x": "10.0"}, predicate="id = 1")
    table.update({"x": "99.0"}, predicate="id = 2")
    table.delete("id = 3")
    write_deltalake(source, pa.table({"id": [5], "x": pa.array([5], pa.float32())}), mode="append")
    table.update_incremental()
    table.delete("id = 1")
    write_deltalake(source, pa.table({"id": [1], "x": pa.array([11], pa.float32())}), mode="append")
    engine.follow(following(engine, source, tmp_path / "c", changes=True), on_slice, Watch())
    assert seen_states == [({1: 2.0, 2: 4.0, 3: 6.0, 4: 8.0}, []), ({1: 22.0, 5: 10.0}, [2, 3])]
    assert versions == {1: 6, 2: 0, 3: 0, 4: 0, 5: 4}


@pytest.mark.parametrize("forced", ["threads", "processes"])
def test_groups_are_scored_whole(tmp_path: Path, forced: str) -> None:
    source = str(tmp_path / "source")
    for start in (0, 50):
        ids = list(range(start, start + 50))
        groups = [None if number % 7 == 6 else f"g{number % 7}" for number in ids]
        rows = pa.table({"id": ids, "g": groups, "x": pa.array(ids, pa.float32())})
        write_deltalake(source, rows, mode="append")
    with LocalEngine(forced=forced) as engine:
        plan = plan_for([function("calls", {"rows": {"dtype": "int64"}})], rows.schema, passthrough=("id", "g"))
        with engine.scored(rows_of(engine, source), plan, group_by=["g"]) as scored:
            found = scored.to_arrow().to_pylist()
    assert sorted(row["id"] for row in found) == list(range(100))
    sizes = {remainder: len([number for number in range(100) if number % 7 == remainder]) for remainder in range(7)}
    assert all(row["out"]["rows"] == sizes[row["id"] % 7] for row in found)


def test_a_function_gets_each_group_as_a_frame(engine: LocalEngine) -> None:
    rows = engine.given(pa.table({"g": ["a", "b", "a"], "x": [1.0, 2.0, 3.0]}))
    made = rows.map_groups(["g"], sums, pa.schema([("g", pa.string()), ("total", pa.float64())]))
    assert sorted(row["total"] for row in made.to_arrow().to_pylist()) == [2.0, 4.0]


def sums(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"g": [frame["g"].iloc[0]], "total": [frame["x"].sum()]})


def test_equal_inputs_are_scored_once_and_earlier_results_taken_over(
    engine: LocalEngine, plan: PredictPlan, tmp_path: Path
) -> None:
    source, output = str(tmp_path / "source"), str(tmp_path / "predictions")
    for start, count in ((0, 4), (0, 4), (2, 4)):  # 12 rows, 6 images
        rows = image_rows(start, count, broken=[1])
        paths_here = [f"img/{len(paths_seen(source)) + number:04d}.png" for number in range(count)]
        write_deltalake(source, rows.set_column(0, "path", pa.array(paths_here)), mode="append")
    plan = replace(plan, provenance=replace(plan.provenance, run_id="first"))
    again = replace(plan, provenance=replace(plan.provenance, run_id="second"))
    with engine.scored(
        rows_of(engine, source).where("path < 'img/0008.png'"), plan, once=Once(("path",)), into=output
    ) as scored:
        assert (scored.rows, scored.rows_error, sum(task["rows"] for task in scored.tasks)) == (8, 2, 4)
        engine.append(scored, output)
    done = rows_of(engine, output)
    with engine.scored(rows_of(engine, source), again, once=Once(("path",), done), into=output) as scored:
        assert (scored.rows, scored.rows_error, sum(task["rows"] for task in scored.tasks)) == (12, 2, 3)
        engine.append(scored, output)
    found = rows_of(engine, output).where("metadata.run_id = 'second'").to_arrow().sort_by("path").to_pylist()
    with engine.scored(rows_of(engine, source), plan) as each:
        alone = each.to_arrow().sort_by("path").to_pylist()
    assert [(row["path"], row["label"], row["out"]) for row in found] == [
        (row["path"], row["label"], row["out"]) for row in alone
    ]
    assert len({row["metadata"]["input_sha256"] for row in found}) == 6


def test_a_copy_knows_its_own_commit(engine: LocalEngine, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    for number in range(2):
        rows = pa.table({"id": [number, number + 10], "x": ["same", None]})
        write_deltalake(source, rows, mode="append", configuration={"delta.enableChangeDataFeed": "true"})
    plan = plan_for([function("same_text", {"y": {"dtype": "string"}})], rows.schema, passthrough=("id",))
    found: list[dict[str, Any]] = []

    def on_slice(new: Slice) -> None:
        there = engine.latest(new.rows, ["id"], None, engine.given(rows.slice(0, 0))).rows
        with engine.scored(there, plan, once=Once(("id",))) as scored:
            found.extend(scored.to_arrow().to_pylist())

    engine.follow(following(engine, source, tmp_path / "c", changes=True), on_slice, Watch())
    write_deltalake(source, pa.table({"id": [2], "x": ["same"]}), mode="append")
    write_deltalake(source, pa.table({"id": [3], "x": ["same"]}), mode="append")
    engine.follow(following(engine, source, tmp_path / "c", changes=True), on_slice, Watch())
    versions = {row["id"]: row["metadata"]["source_version"] for row in found}
    assert versions == {0: 1, 10: 1, 1: 1, 11: 1, 2: 2, 3: 3}
    assert len({row["metadata"]["input_sha256"] for row in found}) == 2


def paths_seen(source: str) -> list[str]:
    if not DeltaTable.is_deltatable(source):
        return []
    return list(DeltaTable(source).to_pyarrow_table(columns=["path"])["path"].to_pylist())


def test_a_stream_looks_again_and_ends_when_told(engine: LocalEngine, images: str, tmp_path: Path) -> None:
    watch, found = Watch(), []

    def on_slice(new: Slice) -> None:
        found.append(paths(new.rows))
        if len(found) == 1:
            write_deltalake(images, image_rows(50, 1), mode="append")
        else:
            watch.stop.set()

    thread = threading.Timer(20, watch.stop.set)
    thread.start()
    engine.follow(following(engine, images, tmp_path / "c", every_seconds=0.1), on_slice, watch)
    thread.cancel()
    assert found[1] == [50]


def test_what_the_engine_cannot_do_it_says(engine: LocalEngine, plan: PredictPlan, images: str) -> None:
    attempts: Sequence[Callable[[], object]] = [
        lambda: engine.snapshot("catalog.table"),
        lambda: rows_of(engine, images).where("length(path) > 3"),
    ]
    for attempt in attempts:
        with pytest.raises(SetupError, match="ENGINE_LOCAL"):
            attempt()
