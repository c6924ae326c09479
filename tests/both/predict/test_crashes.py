"""What breaks beside the job: disks, checkpoints, clocks. Then the next run mends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig
from lakemill.predict import incremental
from tests.both.on import On
from tests.chaos.lake import Verdict, add_rows, config, judge, make_lake

NOTHING_WRONG = Verdict((), (), ())


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder with twelve numbers and the function that doubles them."""
    make_lake(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("doubling", None)


def changed(lake: Path, **values: object) -> PredictConfig:
    """Return the job with other values."""
    return PredictConfig.load(None, **(config(lake).model_dump(exclude_unset=True, mode="python") | values))


def test_rows_that_fail_only_in_the_first_attempt_are_in_both_tables_or_in_none(
    lake: Path, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lake / "life").write_text("1")  # number 3 fails
    with monkeypatch.context() as first:
        first.setattr(incremental, "copy_batch", _fail)
        with pytest.raises(LakemillError, match="before the derived tables"):
            on.predict(config(lake))
    (lake / "life").write_text("2")  # and would not fail now
    on.predict(config(lake))
    assert judge(lake) == NOTHING_WRONG
    assert copies(lake) == [3]


def test_an_undone_run_that_a_restore_brings_back_has_its_copies_again(lake: Path, on: On) -> None:
    (lake / "life").write_text("1")  # numbers that end with 3 fail
    on.predict(config(lake))
    add_rows(lake)
    undone = on.predict(config(lake))
    version = DeltaTable(lake / "predictions").version()
    assert on.undo(config(lake), undone.run_id) == 12
    assert copies(lake) == [3]
    DeltaTable(lake / "predictions").restore(version)
    assert on.predict(config(lake)).rows == 0
    assert copies(lake) == [3, 13, 23]
    assert judge(lake) == NOTHING_WRONG


def copies(lake: Path) -> list[int]:
    return sorted(DeltaTable(lake / "quarantine").to_pyarrow_table()["number"].to_pylist())


def _fail(*_: object) -> None:
    raise LakemillError("TEST", "died before the derived tables")


def test_a_checkpoint_that_a_power_loss_cut_short_starts_anew(lake: Path, on: On) -> None:
    on.predict(config(lake))
    checkpoint = lake / "predictions_checkpoint/chaos"
    for file in ("metadata", "lakemill.json", "offsets/*", "commits/*"):
        max(path for path in checkpoint.glob(file) if not path.name.startswith(".")).write_bytes(b"")
        add_rows(lake)
        lines: list[str] = []
        assert on.predict(config(lake), progress=lines.append).rows == 12
        assert [line for line in lines if "the checkpoint is damaged" in line]
    assert on.predict(config(lake)).batches == 0
    assert judge(lake) == NOTHING_WRONG


def test_a_clock_that_jumps_back_changes_nothing(lake: Path, on: On) -> None:
    on.predict(config(lake))
    tomorrow = time.time() + 86_400  # what the first run wrote is of tomorrow now
    for path in lake.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    add_rows(lake)
    assert on.predict(config(lake)).rows == 12
    assert judge(lake) == NOTHING_WRONG


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # the JVM keeps a file open that it could not write


def test_a_read_only_disk_and_a_full_one_lose_nothing(lake: Path, disk: Path, on: On) -> None:
    job = changed(lake, output={"table": f"{disk}/predictions", "checkpoint": f"{lake}/checkpoint"})
    on.predict(job)
    add_rows(lake)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(LakemillError, match=r"^\[STORAGE_DENIED\]"):
        on.predict(job)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(4 * 2**20))
    with pytest.raises(LakemillError, match=r"^\[DISK_FULL\]"):
        on.predict(job)
    filler.unlink()
    assert on.predict(job).rows == 12
    rows = DeltaTable(disk / "predictions").to_pyarrow_table()
    assert sorted(rows["number"].to_pylist()) == list(range(24))
