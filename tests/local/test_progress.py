"""Progress is what the rows of the output say, whatever became of the tables and of the checkpoint."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import LakemillError, predict_table
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.engine import Watch
from lakemill.engines.local.engine import LocalEngine
from lakemill.predict import incremental, modes, upserts
from lakemill.predict.incremental import Slices, following
from lakemill.predict.modes import MODES
from lakemill.predict.preparing import prepare
from lakemill.predict.redo import retry_errors, undo_run
from lakemill.predict.status import job_status
from tests.events import SCHEMA, Killed, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a lake with rows of which some have null or the same key, scored in two runs, and rows to come."""
    world = World(tmp_path, keys="any")
    chance = random.Random(1)  # noqa: S311 -- no secret
    for _ in range(2):
        world.append(chance)
        predict_table(world.config())
    world.append(chance)
    return world


def chance() -> random.Random:
    return random.Random(0)  # noqa: S311 -- no secret


def test_an_output_that_is_restored_gets_back_what_came_after(world: World) -> None:
    DeltaTable(world.output).restore(1)
    world.check(chance())


@pytest.mark.parametrize("again", ["retry", "where", "other_job", "full_over_ratio"])
def test_an_output_that_is_deleted_and_made_anew_is_filled(world: World, again: str) -> None:
    shutil.rmtree(world.output)
    if again == "full_over_ratio":
        with pytest.raises(LakemillError, match=r"^\[TOO_MANY_ERRORS\]"):
            predict_table(world.config(mode="full", quarantine__max_ratio=0.0))
    else:
        world.happen(again, chance())
    predict_table(world.config())
    assert not any("refused" in line for line in world.said)
    world.judge()


@pytest.mark.parametrize("become", ["lost", "older", "empty", "newer"])
def test_a_checkpoint_is_a_note_only(world: World, tmp_path: Path, become: str) -> None:
    if become == "older":
        world.keep_checkpoint(chance())
        predict_table(world.config())
        world.append(chance())
        world.older_checkpoint(chance())
    elif become == "newer":
        world.lake.joinpath("backup").mkdir()
        shutil.copytree(world.output, tmp_path / "backup/output")
        predict_table(world.config())
        shutil.rmtree(world.output)
        shutil.move(tmp_path / "backup/output", world.output)
    elif become == "lost":
        shutil.rmtree(world.checkpoint)
    else:
        for file in (*world.checkpoint.glob("offsets/*"), *world.checkpoint.glob("commits/*")):
            file.unlink()
    predict_table(world.config(), progress=world.said.append)
    assert any(line.startswith("the predictions say how far the job is") for line in world.said)
    world.judge()


def test_after_a_full_run_the_next_one_takes_what_came_since_and_compares_nothing(world: World) -> None:
    predict_table(world.config(mode="full"))
    version = DeltaTable(world.source).version()
    world.append(chance())
    world.lose_checkpoint(chance())
    result = predict_table(world.config())
    rows = DeltaTable(world.output).to_pyarrow_table().to_pylist()
    assert result.rows == sum(row["metadata"]["source_version"] == version + 1 for row in rows)
    world.judge()


def test_a_source_that_is_another_table_is_refused_with_both_ids_and_full_goes_on(world: World) -> None:
    predict_table(world.config())
    former, folder = DeltaTable(world.source).metadata().id, Path(world.source)
    world.replace_source(chance())
    for mode in ("incremental", "missing"):
        with pytest.raises(LakemillError, match=rf"^\[SOURCE_REPLACED\] .*{former}.*mode: full"):
            predict_table(world.config(mode=mode))
    with pytest.raises(LakemillError, match=r"^\[SOURCE_REPLACED\]"):
        retry_errors(world.config())
    world.lose_checkpoint(chance())
    with pytest.raises(LakemillError, match=rf"^\[SOURCE_REPLACED\] .*{former}"):
        predict_table(world.config())
    assert "another table" in job_status(world.config()).summary()
    assert folder.is_dir()
    predict_table(world.config(mode="full"))
    world.append(chance())
    assert predict_table(world.config()).batches == 1
    world.judge()


@pytest.mark.parametrize("mode", ["where", "missing"])
def test_a_source_that_is_replaced_after_rows_that_say_nothing_of_progress_is_refused(
    tmp_path: Path, mode: str
) -> None:
    world = World(tmp_path, changes="upsert" if mode == "missing" else "append")
    world.append(chance())
    more = {"mode": mode} | ({"source__where": "x >= 0"} if mode == "where" else {})
    assert predict_table(world.config(**more)).rows
    world.replace_source(chance())
    for again in ({}, more):
        with pytest.raises(LakemillError, match=r"^\[SOURCE_REPLACED\]"):
            predict_table(world.config(**again))
    predict_table(world.config(mode="full"))
    world.judge()
    world.append(chance())
    predict_table(world.config())
    world.judge()


def test_a_copy_of_the_source_whose_history_went_another_way_is_refused(world: World) -> None:
    copy = world.lake / "copy"
    shutil.copytree(world.source, copy)
    world.append(chance())
    predict_table(world.config())
    shutil.rmtree(world.source)
    shutil.move(copy, world.source)
    with pytest.raises(LakemillError, match=r"^\[SOURCE_REPLACED\] .*its newest version is 2"):
        predict_table(world.config())
    world.append(chance())  # as many commits as before, other ones
    with pytest.raises(LakemillError, match=r"^\[SOURCE_REPLACED\] .*its version 3 is another one"):
        predict_table(world.config())


def test_a_source_that_is_replaced_under_a_running_stream_is_refused(world: World) -> None:
    slices = Slices(prepare(world.config(), LocalEngine(), print))
    run = slices.run
    run.engine.follow(following(run), slices, Watch())
    slices.look_at_source()
    world.replace_source(chance())
    with pytest.raises(LakemillError, match=r"^\[SOURCE_REPLACED\] .*its version 2 is not the one that was read"):
        slices.look_at_source()


def test_a_lake_that_is_moved_whole_goes_on(world: World, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for part in ("source", "output", "output_checkpoint"):
        shutil.move(world.lake / part, moved / part)
    world.lake = moved
    before = len(DeltaTable(world.output).to_pyarrow_table())
    result = predict_table(world.config())
    assert result.rows == len(world.rows) - before
    world.judge()


def test_another_predicate_key_or_output_is_refused_with_both_values(world: World) -> None:
    for keys, text in (
        ({"source__where": "x > 1"}, "where \\(None, now 'x > 1'\\)"),
        ({"source__key": ["x"]}, "key \\(\\['id'\\], now \\['x'\\]\\)"),
        ({"output__table": f"{world.lake}/else", "output__checkpoint": str(world.checkpoint)}, "output \\("),
    ):
        with pytest.raises(LakemillError, match=rf"^\[CHECKPOINT_OTHER_JOB\] .*{text}"):
            predict_table(world.config(**keys))


def test_a_second_checkpoint_takes_over_and_the_first_one_again(world: World) -> None:
    second = {"output__checkpoint": f"{world.lake}/second"}
    for _ in range(2):
        predict_table(world.config(**second))
        world.judge()
        world.append(chance())
        predict_table(world.config())
        world.judge()
        world.append(chance())


def test_a_copy_of_the_output_with_as_many_commits_is_told_from_it(world: World) -> None:
    backup = world.lake / "backup"
    shutil.copytree(world.output, backup)
    predict_table(world.config())
    shutil.rmtree(world.output)
    shutil.move(backup, world.output)
    world.append(chance())
    predict_table(world.config(output__checkpoint=f"{world.lake}/second"))  # as many transactions, other ones
    predict_table(world.config(), progress=world.said.append)
    assert any(line.startswith("the predictions say how far the job is") for line in world.said)
    world.judge()


@pytest.mark.parametrize(
    ("place", "step"), [(incremental, "write_note"), (incremental, "copy_batch"), (Checkpoint, "finish")]
)
def test_a_batch_that_was_committed_before_a_crash_is_not_committed_again(
    world: World, monkeypatch: pytest.MonkeyPatch, place: object, step: str
) -> None:
    with monkeypatch.context() as crash:
        crash.setattr(place, step, die)
        with pytest.raises(Killed):
            predict_table(world.config())
    assert len(world.found()) == len(world.rows)
    assert predict_table(world.config(), progress=world.said.append).rows == 0
    assert any("was committed by the last run already" in line for line in world.said)
    world.judge()


@pytest.mark.parametrize("mode", ["incremental", "full", "missing", "where", "retry", "change_column"])
def test_an_undone_run_that_a_restore_brings_back_has_its_copies_in_the_quarantine_again(
    tmp_path: Path, mode: str
) -> None:
    world = World(tmp_path, next_x=3)  # the first row fails
    follows = {"source__changes": "upsert", "source__change_column": "x"} if mode == "change_column" else {}
    world.append(chance())
    undone = predict_table(world.config(**follows))
    undo_run(world.config(), undone.run_id)
    assert world.copies() == {}
    DeltaTable(world.output).restore(DeltaTable(world.output).version() - 1)
    again(world, mode, **follows)
    assert world.copies()[3, "job", undone.run_id] == 1
    assert set(world.copies().values()) == {1}


@pytest.mark.parametrize("mode", ["full", "missing", "where", "retry", "change_column"])
def test_copies_that_a_crash_left_out_are_made_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    world = World(tmp_path, next_x=3)
    follows = {"source__changes": "upsert", "source__change_column": "x"} if mode == "change_column" else {}
    world.append(chance())
    if mode == "retry":
        predict_table(world.config())
    with monkeypatch.context() as crash:
        crash.setattr(upserts if mode == "change_column" else modes, "write_quarantine", die)
        with pytest.raises(Killed):
            again(world, mode, **follows)
    predict_table(world.config(**follows))
    world.judge()


def again(world: World, mode: str, **more: object) -> None:
    if mode == "retry":
        retry_errors(world.config())
    elif mode == "where":
        predict_table(world.config(mode="where", source__where="x >= 0"))
    else:
        predict_table(world.config(mode=mode if mode in MODES else "incremental", **more))


def test_a_batch_that_is_scored_anew_after_a_restore_has_copies_though_its_number_had_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.append(chance())
    predict_table(world.config())
    before, world.next_x = DeltaTable(world.output).version(), 13
    world.append(chance())
    with monkeypatch.context() as crash:
        crash.setattr(Checkpoint, "finish", die)
        with pytest.raises(Killed):
            predict_table(world.config())
    DeltaTable(world.output).restore(before)
    predict_table(world.config())
    world.judge()


def die(*_: object) -> None:
    raise Killed


def test_a_job_whose_commits_were_cleaned_from_the_log_of_its_output_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(chance())
    predict_table(world.config())
    world.other_job(chance())
    clean(world.output, DeltaTable(world.output).version())
    world.append(chance())
    predict_table(world.config())
    world.judge()


def clean(table: str, version: int) -> None:
    """Take the commits before a version out of a table's log, as Delta does after a month."""
    DeltaTable(table).create_checkpoint()
    for older in range(version):
        Path(table, "_delta_log", f"{older:020d}.json").unlink()


@pytest.mark.parametrize("mode", ["incremental", "where"])
def test_rows_that_went_since_they_were_scored_are_told_where_the_log_of_the_source_was_cleaned(
    tmp_path: Path, mode: str
) -> None:
    world = World(tmp_path)
    for number in range(3):
        world.append(chance())
        if mode == "incremental" or not number:
            again(world, mode)
    clean(world.source, 2)
    DeltaTable(world.source).delete("x = 0")
    predict_table(world.config(mode="missing"), progress=world.said.append)
    assert any(line.startswith("version 3 of the source changed or deleted rows") for line in world.said)
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\]"):
        predict_table(world.config())
    assert job_status(world.config()).source_rows == len(world.rows) - 1


def test_rows_of_any_file_of_the_first_snapshot_that_where_scored_are_scored_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(4):
        world.append(chance())
    again(world, "where")
    world.append(chance())
    assert predict_table(world.config(engine__max_bytes_per_trigger="1")).batches == 5
    world.judge()


def test_rows_of_any_version_that_where_scored_are_scored_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(chance())
    predict_table(world.config())
    for _ in range(3):
        first = world.next_x
        world.append(chance())
        predict_table(world.config(mode="where", source__where=f"x >= {first}"))
    world.append(chance())
    assert predict_table(world.config(engine__max_bytes_per_trigger="1")).batches == 4
    world.judge()


def test_a_renamed_job_says_so(world: World) -> None:
    predict_table(world.config("renamed"), progress=world.said.append)
    assert any("predictions of the job 'job' over this source, none of 'renamed'" in line for line in world.said)


@pytest.mark.parametrize("modes", [("incremental", "full"), ("missing", "full"), ("incremental", "incremental")])
def test_two_modes_at_once_never_both_land(world: World, modes: tuple[str, str]) -> None:
    for x in world.rows:
        world.rows[x] = x  # `missing` needs a key
    keyed = {"source__key": ["x"], "output__table": f"{world.lake}/both"}
    runs = [prepare(world.config(mode=mode, **keyed), LocalEngine(), print) for mode in modes]
    MODES[modes[0]](runs[0])
    with pytest.raises(LakemillError, match=r"^\[RUN_OVERTAKEN\]"):
        MODES[modes[1]](runs[1])
    found = DeltaTable(f"{world.lake}/both").to_pyarrow_table()["x"].to_pylist()
    assert sorted(found) == sorted(world.rows)


@pytest.mark.parametrize("event", ["restore_output", "lose_output", "delete_rows"])
def test_an_output_that_changes_while_a_run_scores_gets_nothing_more(world: World, event: str) -> None:
    run = prepare(world.config(), LocalEngine(), world.said.append)
    if event == "lose_output":
        world.lose_output(chance())
    elif event == "restore_output":
        DeltaTable(world.output).restore(1)
    else:
        DeltaTable(world.output).delete("x = 0")
        world.deleted.add(0)
    with pytest.raises(LakemillError, match=r"^\[(OUTPUT_CHANGED|TABLE_NOT_FOUND)\]"):
        MODES["incremental"](run)
    world.check(chance())


def test_retry_keeps_a_row_s_query_and_batch_and_position(tmp_path: Path) -> None:
    world = World(tmp_path, next_x=3)
    world.append(chance())
    predict_table(world.config())

    def failed() -> list[object]:
        rows = DeltaTable(world.output).to_pyarrow_table().to_pylist()
        kept = [row["metadata"] for row in rows if row["error"]]
        return [[row[name] for name in ("query_id", "batch_id", "position")] for row in kept]

    before = failed()
    assert before
    assert retry_errors(world.config()).rows == len(before)
    assert failed() == before


def test_retry_replaces_no_other_row_s_prediction(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_deltalake(world.source, pa.table({"id": [2, 2], "x": [3, 6]}, SCHEMA))  # the first one fails
    predict_table(world.config())
    DeltaTable(world.source).delete("x = 6")
    with pytest.raises(LakemillError, match=r"^\[KEY_NOT_UNIQUE\] 2 of 2 predictions of .*mode: full"):
        retry_errors(world.config())
    assert sorted(row["x"] for row in world.found()) == [3, 6]


def test_the_run_that_is_undone_is_scored_again_wherever_it_stands(tmp_path: Path) -> None:
    world, runs = World(tmp_path), []
    for _ in range(3):
        world.append(chance())
        runs.append(predict_table(world.config()))
    assert undo_run(world.config(), runs[1].run_id) == runs[1].rows
    world.lose_checkpoint(chance())
    assert predict_table(world.config()).rows == runs[1].rows
    world.judge()


def test_rows_of_a_later_run_that_end_where_the_undone_one_did_do_not_hide_its_rows(tmp_path: Path) -> None:
    """Here ``missing`` scored one of its rows again, from the same version of the source."""
    world = World(tmp_path)
    world.append(chance())
    world.append(chance())
    first = predict_table(world.config())
    DeltaTable(world.output).delete("x = 0")
    assert predict_table(world.config(mode="missing")).rows == 1
    assert undo_run(world.config(), first.run_id) == first.rows - 1
    assert predict_table(world.config()).rows == first.rows - 1
    world.judge()


def test_status_counts_predictions_against_rows_of_the_source(world: World) -> None:
    predict_table(world.config())
    DeltaTable(world.output).delete("x = 1")
    status = job_status(world.config())
    assert (status.rows, status.source_rows, status.lag_versions) == (len(world.rows) - 1, len(world.rows), 0)
    assert f"{status.rows} predictions of {status.source_rows} rows" in status.summary()
    DeltaTable(world.source).delete("x = 2")
    status = job_status(world.config())
    assert (status.lag_versions, status.lag_rows) == (1, None)  # how many rows it comes to, the log does not say
    DeltaTable(world.output).delete()
    assert job_status(world.config()).scored_version is None


def test_two_incremental_runs_in_threads_lose_and_double_nothing(world: World) -> None:
    def attempt(_: int) -> str | None:
        try:
            run = prepare(world.config(), LocalEngine(), lambda _: None)
            MODES["incremental"](run)
        except LakemillError as error:
            return error.code
        return None

    with ThreadPoolExecutor(2) as pool:
        codes: list[str | None] = list(pool.map(attempt, range(2)))
    assert None in codes
    world.check(chance())
