"""What breaks beside the driver: workers, executors, disks, checkpoints, clocks. Then the next run mends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from deltalake import DeltaTable

from lakemill import LakemillError, predict_table
from tests.chaos.lake import Verdict, config, judge, make_lake

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


def test_a_python_worker_that_is_killed_costs_a_run_at_most(lake: Path, spark: SparkSession) -> None:
    killer = KILLER.format(function="double", victim="its worker", lake=str(lake), pid="os.getpid()")
    (lake / "doubling.py").write_text(killer)
    with pytest.raises(LakemillError, match=r"^\[WORKER_DIED\]"):
        predict_table(config(lake), spark)
    assert DeltaTable(lake / "predictions").to_pyarrow_table().num_rows == 0
    assert predict_table(config(lake), spark).rows == 12
    assert judge(lake) == NOTHING_WRONG


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
