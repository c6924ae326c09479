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
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill_udfs.errors import ConfigError

RESULTS = pa.schema([("rank", pa.int64()), ("result", pa.binary())])
JOB, RESULT = "job.pickle", "result.pickle"
LAST_BYTES = 20_000
"""Of a process's log, which an error brings along."""


def run_in_barrier(job: bytes, num_processes: int, logs: str) -> Any:
    """Run a job in so many tasks at once; return what it returned in rank 0.

    Args:
        job: Pickled ``(train_function, converter, args, kwargs)``.
        num_processes: How many.
        logs: A folder that gets the log of a rank that fails, where it is on the driver's machine.

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
    ran = ranks.mapInArrow(partial(run_task, job=job, logs=logs), "rank long, result binary", barrier=True).collect()
    return cloudpickle.loads(next(bytes(row["result"]) for row in ran if row["rank"] == 0))


def run_task(batches: Iterator[pa.RecordBatch], *, job: bytes, logs: str) -> Iterator[pa.RecordBatch]:
    """Run one rank in a process of its own; yield what it returned, pickled."""
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    rank = context.partitionId()
    for _ in batches:
        pass  # the numbers are only there to make tasks
    host = context.getTaskInfos()[rank].address.split(":")[0]
    with socket.socket() as held:
        held.bind(("", 0))
        workers = context.allGather(f"{host}:{held.getsockname()[1]}")
    cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / JOB).write_bytes(job)
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "lakemill.training.rank", folder]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            log = f"rank {rank}: {done.stdout[-LAST_BYTES:].decode(errors='replace')}"
            if Path(logs).is_dir():
                (Path(logs) / f"rank_{rank}.log").write_text(log, encoding="utf-8")
            raise RuntimeError(log)
        result = (Path(folder) / RESULT).read_bytes()
    yield pa.RecordBatch.from_pylist([{"rank": rank, "result": result}], RESULTS)
