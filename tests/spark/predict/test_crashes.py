"""What breaks beside the driver: workers, executors, disks, checkpoints, clocks. Then the next run mends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig, predict_table
from tests.chaos.lake import Verdict, add_rows, config, judge, make_lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.spark.cluster import Cluster

NOTHING_WRONG = Verdict((), (), ())

KILLER = '''
import os
import signal
from pathlib import Path


def {function}(inputs):
    """Double the numbers; the first to come kills {victim}."""
    if (inputs["number"] == 5).any():
        try:
            (Path({lake!r}) / "killed").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill({pid}, signal.SIGKILL)
            signal.pause()
    return {{"double": inputs["number"] * 2}}
'''


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


def test_a_python_worker_that_is_killed_costs_a_run_at_most(lake: Path, spark: SparkSession) -> None:
    killer = KILLER.format(function="double", victim="its worker", lake=str(lake), pid="os.getpid()")
    (lake / "doubling.py").write_text(killer)
    with pytest.raises(LakemillError, match=r"^\[WORKER_DIED\]"):
        predict_table(config(lake), spark)
    assert DeltaTable(lake / "predictions").to_pyarrow_table().num_rows == 0
    assert predict_table(config(lake), spark).rows == 12
    assert judge(lake) == NOTHING_WRONG


def test_rows_that_fail_only_in_the_first_attempt_are_in_both_tables_or_in_none(
    lake: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakemill.predict import incremental

    (lake / "life").write_text("1")  # number 3 fails
    with monkeypatch.context() as first:
        first.setattr(incremental, "write_quarantine", _fail)
        with pytest.raises(LakemillError, match="before the derived tables"):
            predict_table(config(lake), spark)
    (lake / "life").write_text("2")  # and would not fail now
    predict_table(config(lake), spark)
    assert judge(lake) == NOTHING_WRONG
    assert DeltaTable(lake / "quarantine").to_pyarrow_table()["number"].to_pylist() == [3]


def _fail(*_: object) -> None:
    raise LakemillError("TEST", "died before the derived tables")


def test_a_checkpoint_that_a_power_loss_cut_short_starts_anew(lake: Path, spark: SparkSession) -> None:
    predict_table(config(lake), spark)
    checkpoint = lake / "predictions_checkpoint/chaos"
    for file in ("metadata", "lakemill.json", "offsets/*", "commits/*"):
        max(path for path in checkpoint.glob(file) if not path.name.startswith(".")).write_bytes(b"")
        add_rows(lake)
        lines: list[str] = []
        assert predict_table(config(lake), spark, progress=lines.append).rows == 12
        assert [line for line in lines if "the checkpoint is damaged" in line]
    assert predict_table(config(lake), spark).batches == 0
    assert judge(lake) == NOTHING_WRONG


def test_a_clock_that_jumps_back_changes_nothing(lake: Path, spark: SparkSession) -> None:
    predict_table(config(lake), spark)
    tomorrow = time.time() + 86_400  # what the first run wrote is of tomorrow now
    for path in lake.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    add_rows(lake)
    assert predict_table(config(lake), spark).rows == 12
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


def test_a_read_only_disk_and_a_full_one_lose_nothing(lake: Path, disk: Path, spark: SparkSession) -> None:
    job = changed(lake, output={"table": f"{disk}/predictions", "checkpoint": f"{lake}/checkpoint"})
    predict_table(job, spark)
    add_rows(lake)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(LakemillError, match=r"^\[STORAGE_DENIED\]"):
        predict_table(job, spark)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(4 * 2**20))
    with pytest.raises(LakemillError, match=r"^\[DISK_FULL\]"):
        predict_table(job, spark)
    filler.unlink()
    assert predict_table(job, spark).rows == 12
    rows = DeltaTable(disk / "predictions").to_pyarrow_table()
    assert sorted(rows["number"].to_pylist()) == list(range(24))


def test_an_executor_that_is_killed_is_replaced(tmp_path: Path, cluster: Cluster) -> None:
    make_lake(tmp_path)
    # A worker's parent is PySpark's daemon, and the daemon's is the executor.
    executor = 'int(Path(f"/proc/{os.getppid()}/stat").read_text().split()[3])'
    killer = KILLER.format(function="double", victim="its executor", lake=str(tmp_path), pid=executor)
    (tmp_path / "doubling.py").write_text(killer)
    raw = config(tmp_path).model_dump(exclude_unset=True, mode="json")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw))
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys\nsys.path.append({str(tmp_path)!r})\n"
        "from lakemill import PredictConfig, predict_table\n"
        f"predict_table(PredictConfig.load({str(tmp_path / 'job.yaml')!r}))\n"
    )
    done = cluster.submit(script)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists()
    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert sorted((row["number"], row["out"]["double"]) for row in rows) == [(n, 2 * n) for n in range(12)]
