"""A commit counts only if the table's log has it; a checkpoint only if it was made to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from pyarrow import fs

from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.conditional import TableState
from lakemill.engines.engine import Transaction as Own
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.positions import Position
from lakemill_udfs.errors import ConfigError, RunError

APP = "lakemill/job"


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Return a table with one commit of the job."""
    location = str(tmp_path / "table")
    add(location, 1)
    return location


def add(location: str, number: int | None = None) -> bool:
    """Append a row, with a transaction of the job if it has a number."""
    own = [] if number is None else [Transaction(APP, number)]
    rows, properties = pa.table({"id": [0]}), CommitProperties(app_transactions=own)
    write_deltalake(location, rows, mode="append", commit_properties=properties)
    return True


def test_commits_are_numbered_one_after_the_other(table: str) -> None:
    state = TableState.read(LocalEngine(), table, APP)
    assert state.transaction == 1
    assert state.commit(lambda own: add(table, own.version))
    add(table)  # somebody else's
    assert state.commit(lambda own: add(table, own.version))
    assert TableState.read(LocalEngine(), table, APP).transaction == state.transaction == 3
    assert state.mark.version == DeltaTable(table).version()


@pytest.mark.parametrize("says", [False, True])
def test_a_write_that_made_no_commit_is_an_error(table: str, says: bool) -> None:
    def skipped(own: Own) -> bool:
        return says

    state = TableState.read(LocalEngine(), table, APP)
    with pytest.raises(RunError, match=r"^\[COMMIT_LOST\] .*transaction 2 of 'lakemill/job' was not made"):
        state.commit(skipped)


def test_a_write_that_was_not_needed_is_none(table: str) -> None:
    state = TableState.read(LocalEngine(), table, APP)
    assert not state.commit(lambda own: False, is_needed=False)


def test_a_commit_that_another_run_made_meanwhile_is_theirs(table: str) -> None:
    state = TableState.read(LocalEngine(), table, APP)

    def skipped(own: Own) -> bool:
        add(table, own.version)  # the other run's, in the moment in which this one writes
        return False

    with pytest.raises(RunError, match=r"^\[RUN_OVERTAKEN\]"):
        state.commit(skipped)


class Dying:
    """A file system, of which another class says what it is, that dies after some deletions."""

    left = 0

    def delete_dir(self, path: str) -> None:
        self.delete(super().delete_dir, path)  # type: ignore[misc]

    def delete_file(self, path: str) -> None:
        self.delete(super().delete_file, path)  # type: ignore[misc]

    def delete(self, really: Callable[[str], None], path: str) -> None:
        if not self.left:
            raise KeyboardInterrupt
        type(self).left -= 1
        really(path)


@pytest.mark.parametrize("deletions", range(4))
def test_a_removal_that_dies_leaves_no_checkpoint_that_passes_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    class Disk(Dying, fs.LocalFileSystem):  # type: ignore[misc] # pyarrow is not typed
        pass

    Disk.left = deletions
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    checkpoint.restart({"job": "job"}, Position(3), "id")
    with monkeypatch.context() as killed:
        killed.setattr("lakemill.engines.checkpoint.filesystem", lambda location: (Disk(), location))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.remove()
    assert checkpoint.identity() is None
    assert checkpoint.last_batch() is None
    checkpoint.check_own("job")
    checkpoint.remove()
    checkpoint.restart({"job": "job"}, Position(4), "id")
    assert checkpoint.position(0) == Position(4)


@pytest.mark.parametrize("deletions", range(4))
def test_a_removal_that_dies_on_a_store_without_renames_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    class Store(Dying, fs.SubTreeFileSystem):  # type: ignore[misc] # pyarrow is not typed
        pass

    Store.left = deletions
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    checkpoint.restart({"job": "job"}, Position(3), "id")
    with monkeypatch.context() as killed:
        store = Store(str(tmp_path), fs.LocalFileSystem())
        killed.setattr("lakemill.engines.checkpoint.filesystem", lambda location: (store, Path(location).name))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.remove()
    assert checkpoint.damage() is not None
    checkpoint.check_own("job")
    with pytest.raises(ConfigError, match=r"^\[CHECKPOINT_NOT_OURS\].*that of the job 'job'"):
        checkpoint.check_own("other")
    checkpoint.restart({"job": "job"}, Position(4), "id")
    assert (checkpoint.damage(), checkpoint.position(0)) == (None, Position(4))


def test_a_commit_whose_end_is_lost_is_damage(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    checkpoint.restart({"job": "job"}, Position(3), "id")
    checkpoint.begin(1, Position(4), "id")
    checkpoint.finish(1)
    assert checkpoint.damage() is None
    (tmp_path / "checkpoint/offsets/1").unlink()
    assert checkpoint.damage() == "offsets/1"


@pytest.mark.parametrize("step", ["start", "begin", "finish"])
def test_a_checkpoint_that_was_not_made_to_its_end_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoint, step, dies)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.restart({"job": "job"}, Position(3), "id")
    assert checkpoint.damage() == "it was not made to its end"
    checkpoint.restart({"job": "job"}, Position(3), "id")
    assert checkpoint.damage() is None
    assert checkpoint.position(0) == Position(3)
