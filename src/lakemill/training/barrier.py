"""TensorFlow on several processes: a barrier job of Spark starts them together and tells each where the others are.

For PyTorch Spark has its ``TorchDistributor``; for TensorFlow nothing is maintained. Each task of the job runs a
process of its own, because TensorFlow joins a cluster only once in a process, and Spark's workers are used again.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill_udfs.errors import ConfigError

COLUMNS = "rank long, result binary, log string"
RESULTS = pa.schema([("rank", pa.int64()), ("result", pa.binary()), ("log", pa.string())])
JOB, RESULT, LOG = "job.pickle", "result.pickle", "log.txt"
LAST_BYTES = 20_000
"""Of a process's log, which an error brings along."""

RUNS, DONE, FAILED = "runs", "done", "failed"
LOOK_SECONDS = 1.0


def run_in_barrier(job: bytes, num_processes: int) -> tuple[Any, list[str]]:
    """Run a job in so many tasks at once.

    A process that fails does not fail its task, which Spark would begin again with all the others; it is a result.

    Args:
        job: Pickled ``(train_function, converter, args, kwargs)``.
        num_processes: How many.

    Returns:
        What it returned in rank 0, and the log of each rank that failed by itself.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT`` if the session has fewer tasks at once: Spark would wait minutes for more.
    """
    from pyspark import cloudpickle

    from lakemill.engines.spark.session import get_session, task_slots

    spark = get_session("training")
    if num_processes > (slots := task_slots(spark)):
        raise ConfigError(
            "TRAINING_ARGUMENT",
            f"'num_processes' is {num_processes}; the session runs {slots} tasks at once.",
            hint="a local session has as many as spark.master says: local[4].",
        )
    ranks = spark.range(num_processes, numPartitions=num_processes)
    rows = ranks.mapInArrow(partial(run_task, job=job), COLUMNS, barrier=True).collect()
    failed = [f"rank {row['rank']}: {row['log']}" for row in rows if row["log"] is not None]
    results = [bytes(row["result"]) for row in rows if row["result"] is not None]
    return (cloudpickle.loads(results[0]) if results else None), failed


def run_task(batches: Iterator[pa.RecordBatch], *, job: bytes) -> Iterator[pa.RecordBatch]:
    """Run one rank in a process of its own; yield what rank 0 returned, pickled, and the log of one that failed."""
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    rank = context.partitionId()
    for _ in batches:
        pass  # the numbers are only there to make tasks
    cluster = {"cluster": {"worker": _workers(context)}, "task": {"type": "worker", "index": rank}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / JOB).write_bytes(job)
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "lakemill.training.rank", name]
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            state = _watch(process, context)
        found: dict[str, Any] = {"rank": rank, "result": None, "log": None}
        if state == FAILED:
            said = (folder / LOG).read_bytes()[-LAST_BYTES:].decode(errors="replace")
            found["log"] = f"ended with {process.returncode}\n{said}"
        elif (folder / RESULT).exists():
            found["result"] = (folder / RESULT).read_bytes()
    yield pa.RecordBatch.from_pylist([found], RESULTS)


def _workers(context: Any) -> list[str]:
    """Return the addresses of all ranks, in order."""
    host = context.getTaskInfos()[context.partitionId()].address.split(":")[0]
    with socket.socket() as held:
        held.bind(("", 0))
        return list(context.allGather(f"{host}:{held.getsockname()[1]}"))


def _watch(process: subprocess.Popen[bytes], context: Any) -> str:
    """Wait for all ranks to be done, or for one to fail, with which the others end; return what this one came to."""
    state, everyone = RUNS, [RUNS]
    try:
        while RUNS in everyone and FAILED not in everyone:
            with suppress(subprocess.TimeoutExpired):
                state = FAILED if process.wait(LOOK_SECONDS) else DONE
            everyone = context.allGather(state)
    finally:
        process.kill()  # one that waits for a dead rank does so for ever
        process.wait()
    return state
