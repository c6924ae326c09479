"""Two runs at once: the lock gives the message, and without it Delta's transactions let nothing double."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable, Field

from lakemill import LakemillError
from lakemill.engines.choice import open_engine
from lakemill.engines.needs import Needs
from lakemill.predict.locks import hold
from lakemill.predict.modes import run_missing
from lakemill.predict.preparing import prepare
from tests.both.on import On
from tests.lake import add_images, at_once, digits_job, onnx_classifier, paths_of


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Yield a folder with 4 images and a model."""
    add_images(tmp_path / "images", 0, 4)
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def test_the_second_run_stops_or_waits(lake: Path, on: On) -> None:
    config, said = digits_job(lake), []
    with hold(config, said.append), pytest.raises(LakemillError, match=r"^\[JOB_RUNNING\] .*\(process \d+ on"):
        on.predict(config)
    codes = at_once(
        lambda: on.predict(config, progress=said.append, wait=True),
        lambda: on.predict(config, progress=said.append, wait=True),
    )
    assert codes == []
    assert any(line.startswith("waiting for the run") for line in said)
    assert len(paths_of(lake)) == 4
    assert not list((lake / "predictions_checkpoint").glob("*.lock"))


def test_the_lock_of_a_dead_run_is_taken_over(lake: Path) -> None:
    config, said = digits_job(lake), []
    script = (
        "import os, sys; from lakemill import PredictConfig; from lakemill.predict.locks import hold\n"
        "config = PredictConfig.model_validate_json(sys.stdin.read())\n"
        "with hold(config, print): os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", script], input=config.model_dump_json(), text=True, check=False)
    assert dead.returncode == 9
    with hold(config, said.append):
        assert [line.partition(" (")[0] for line in said] == ["taking over the lock that a dead run left"]
    lock = lake / "predictions_checkpoint/digits.lock"
    far = {"id": "x", "host": "elsewhere", "pid": 1, "started": "1", "heartbeat": 0.0}
    lock.write_text(json.dumps(far))
    with hold(config, said.append):
        assert len(said) == 2


def test_one_of_many_runs_that_begin_together_has_the_lock(lake: Path) -> None:
    config, together, refused = digits_job(lake), threading.Barrier(8), threading.Semaphore(0)

    def begin() -> None:
        together.wait()
        try:
            with hold(config, print):
                for _ in range(7):
                    assert refused.acquire(timeout=60)
        finally:
            refused.release()

    assert at_once(*[begin] * 8) == ["JOB_RUNNING"] * 7
    assert not list((lake / "predictions_checkpoint").iterdir())


@pytest.mark.parametrize(
    "left", [b"{", b'{"id": "x", "host"', b"\0\0\0\0", b"\xff\xfe", b"[]", b'{"id": 1, "pid": "1"}', b"null"]
)
def test_a_lock_that_a_power_cut_damaged_is_taken_over(lake: Path, left: bytes) -> None:
    config, said = digits_job(lake), []
    lock = lake / "predictions_checkpoint/digits.lock"
    lock.parent.mkdir()
    lock.write_bytes(left)
    with hold(config, said.append):
        assert said == ["taking over the lock that is damaged"]
    assert not lock.exists()


@pytest.mark.seam
def test_without_the_lock_two_runs_of_a_mode_write_each_row_once(lake: Path, on: On) -> None:
    config = digits_job(lake, mode="missing")
    config = on.job(config)
    runs = [prepare(config, open_engine(on.session, Needs("digits"), config.engine), lambda _: None) for _ in range(2)]
    codes = at_once(*(lambda run=run: run_missing(run) for run in runs))
    assert codes in ([], ["RUN_OVERTAKEN"])
    assert len(paths_of(lake)) == 4


def test_different_jobs_share_a_table(lake: Path, on: On) -> None:
    configs = [digits_job(lake, name="one"), digits_job(lake, name="two")]
    assert at_once(*(lambda config=config: on.predict(config) for config in configs)) == []
    assert paths_of(lake) == sorted([f"img/{number:04d}.png" for number in range(4)] * 2)


def test_a_column_added_to_the_target_meanwhile_stays(lake: Path, on: On) -> None:
    add_images(lake / "images", 4, 4)

    def change(line: str) -> None:
        if line.startswith("batch 0: committed"):
            DeltaTable(lake / "predictions").alter.add_columns([Field("reviewed", "boolean")])

    on.predict(digits_job(lake, "engine.max_bytes_per_trigger=1"), progress=change)
    assert len(paths_of(lake)) == 8
    add_images(lake / "images", 8, 1)
    assert on.predict(digits_job(lake)).rows == 1
    assert DeltaTable(f"{lake}/predictions").to_pyarrow_table()["reviewed"].to_pylist() == [None] * 9
