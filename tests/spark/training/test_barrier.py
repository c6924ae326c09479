"""The barrier job that starts TensorFlow's processes: each has a shard and all addresses; one that dies ends all.

TensorFlow itself trains in ``tests/frameworks/test_training_tensorflow_distributed.py``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakemill.training import distribute
from lakemill_udfs.errors import ConfigError, RunError
from tests.unit.training.training_tables import write_examples

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_each_process_has_its_shard_and_the_first_one_s_result_comes_back(spark: SparkSession, tmp_path: Path) -> None:
    def train(converter: Any, folder: str) -> Any:  # in here: a process of a cluster cannot import this module
        said = json.loads(os.environ["TF_CONFIG"])
        with converter.make_loader(schema_fields=["number"]) as loader:
            numbers = [number for batch in loader for number in batch["number"].tolist()]
        (Path(folder) / str(said["task"]["index"])).write_text(json.dumps([numbers, said["cluster"]["worker"]]))
        return {"numbers": numbers, "process": os.getpid()}

    table = write_examples(tmp_path / "examples", 31)
    done = distribute(train, 2, str(tmp_path), table=table, framework="tensorflow")
    (first, addresses), (second, same) = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert done["numbers"] == first
    assert done["process"] != os.getpid()
    assert sorted(first + second) == list(range(31))
    assert addresses == same
    assert len(set(addresses)) == 2


@pytest.mark.parametrize("how", ["raises", "is killed"])
def test_a_process_that_dies_is_an_error_with_its_log(spark: SparkSession, tmp_path: Path, how: str) -> None:
    def train(converter: Any, folder: str, how: str) -> None:
        rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        (Path(folder) / f"{rank}-{os.getpid()}").touch()
        if rank == 1 and how == "raises":
            raise ValueError("the second rank has had enough")
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)  # as one that waits for the other

    started = tmp_path / "started"
    started.mkdir()
    table = write_examples(tmp_path / "examples", 10, 1)
    with pytest.raises(RunError) as raised:
        distribute(train, 2, str(started), how, table=table, framework="tensorflow")
    assert raised.value.code == "TRAINING_PROCESS"
    (log,) = [note for note in raised.value.__notes__ if note.startswith("rank ")]
    assert ("the second rank has had enough" if how == "raises" else "rank 1: ended with -9") in log
    processes = [int(file.name.partition("-")[2]) for file in started.iterdir()]
    assert len(processes) <= 2, "Spark did not begin again"
    assert not any(Path(f"/proc/{process}").exists() for process in processes), "no process is left"


def test_what_cannot_run_is_refused_at_once(spark: SparkSession, tmp_path: Path) -> None:
    table = write_examples(tmp_path / "examples", 10, 1)
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        distribute(print, 64, table=table, framework="tensorflow")
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        distribute(print, 2, table=table, framework="horovod")  # type: ignore[arg-type]
