"""Training on several processes: each rank gets its shard of one pinned version.

For PyTorch by Spark's ``TorchDistributor``, for TensorFlow by a barrier job of ours.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lakemill.training.barrier import run_in_barrier
from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill.training.torch_batches import import_torch
from lakemill_udfs.errors import ConfigError, RunError


def distribute(
    train_function: Callable[..., Any],
    num_processes: int,
    *args: Any,
    table: Any,
    framework: Literal["torch", "tensorflow"] = "torch",
    local_mode: bool = True,
    use_gpu: bool = False,
    **kwargs: Any,
) -> Any:
    """Run a function in several processes that train one network together.

    Args:
        train_function: Called in each process as ``train_function(converter, *args, **kwargs)``; the converter's
            loaders read the shard of its rank. ``torch.distributed``'s variables (``RANK``, ``WORLD_SIZE``,
            ``MASTER_ADDR``, ...) are set and it calls ``init_process_group`` itself; for TensorFlow ``TF_CONFIG`` is,
            and it makes a ``MultiWorkerMirroredStrategy`` first of all.
        num_processes: How many.
        *args: Of the function.
        table: What they train on: a converter, or what ``make_spark_converter`` takes.
        framework: ``torch`` or ``tensorflow``.
        local_mode: Whether they run on the driver's machine; else one in each of so many tasks of a barrier job.
            TensorFlow's are always such tasks, which a local session has on this machine.
        use_gpu: Whether each has a GPU; TensorFlow takes those that its task sees.
        **kwargs: Of the function.

    Returns:
        What the function returned in rank 0.

    Raises:
        RunError: ``TRAINING_PROCESS`` if one ends with an error; the others are ended too. Its note holds the log.
        ConfigError: ``TRAINING_ARGUMENT`` for another framework, or for more TensorFlow processes than tasks at once.
        ModelError: ``EXTRA_MISSING`` without PyTorch.
        SetupError: as ``get_session``.
        LakemillError: as ``make_spark_converter``.
    """
    if framework not in ("torch", "tensorflow"):
        raise ConfigError("TRAINING_ARGUMENT", f"'framework' is torch or tensorflow; got {framework!r}.")
    if framework == "torch":
        import_torch()
    from lakemill.engines.spark.session import get_session

    get_session("training")
    converter = table if isinstance(table, SparkDatasetConverter) else make_spark_converter(table)
    if framework == "tensorflow":
        return _with_tensorflow(num_processes, (train_function, converter, args, kwargs))
    from pyspark.ml.torch.distributor import TorchDistributor

    distributor = TorchDistributor(num_processes=num_processes, local_mode=local_mode, use_gpu=use_gpu)
    with tempfile.TemporaryDirectory() as logs:
        try:
            return distributor.run(_run_rank, logs, converter, train_function, args, kwargs)
        except Exception as error:  # RuntimeError on this machine, Spark's own classes from a cluster
            texts = [log.read_text(encoding="utf-8") for log in sorted(Path(logs).iterdir())]
            raise _failed(num_processes, texts or [str(error)]) from error


def _with_tensorflow(num_processes: int, job: tuple[Any, ...]) -> Any:
    from pyspark import cloudpickle

    from lakemill.engines.spark.errors import SPARK_FAILURES

    pickled = cloudpickle.dumps(job)  # type: ignore[no-untyped-call]  # pyspark's copy of cloudpickle has no types
    try:
        result, logs = run_in_barrier(pickled, num_processes)
    except SPARK_FAILURES as error:  # a machine is lost, or has no Lakemill
        raise _failed(num_processes, [str(error)]) from error
    if logs:
        raise _failed(num_processes, logs)
    return result


def _failed(num_processes: int, logs: Sequence[str]) -> RunError:
    failed = RunError(
        "TRAINING_PROCESS",
        f"one of the {num_processes} training processes ended with an error.",
        hint="its log is below this error's traceback.",
    )
    for text in logs:
        failed.add_note(text)
    return failed


def _run_rank(
    logs: str,
    converter: SparkDatasetConverter,
    train_function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    rank = int(os.environ["RANK"])
    try:
        return train_function(converter.shard(rank, int(os.environ["WORLD_SIZE"])), *args, **kwargs)
    except Exception:  # on its way: torchrun prints it, and tells its caller nothing
        if Path(logs).is_dir():  # the driver's machine; from others Spark brings the log
            (Path(logs) / f"rank_{rank}.log").write_text(f"rank {rank}: {traceback.format_exc()}", encoding="utf-8")
        raise
