"""What breaks beside the driver: workers, executors, disks, checkpoints, clocks. Then the next run mends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, predict_table
from tests.chaos.lake import Verdict, config, judge, make_lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
