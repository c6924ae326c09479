"""Training on several processes: each rank gets its shard of one pinned version, by Spark's ``TorchDistributor``."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill.training.torch_batches import import_torch
from lakemill_udfs.errors import RunError


def distribute(
    train_function: Callable[..., Any],
    num_processes: int,
    *args: Any,
    table: Any,
    local_mode: bool = True,
    use_gpu: bool = False,
    **kwargs: Any,
) -> Any:
    """Run a function in several processes that train one network together.

    Args:
        train_function: Called in each process as ``train_function(converter, *args, **kwargs)``; the converter's
            loaders read the shard of its rank. ``torch.distributed``'s variables (``RANK``, ``WORLD_SIZE``,
            ``MASTER_ADDR``, ...) are set; it calls ``init_process_group`` itself.
        num_processes: How many.
        *args: Of the function.
        table: What they train on: a converter, or what ``make_spark_converter`` takes.
        local_mode: Whether they run on the driver's machine; else one in each of so many tasks of a barrier job.
        use_gpu: Whether each has a GPU.
        **kwargs: Of the function.

    Returns:
        What the function returned in rank 0.

    Raises:
        RunError: ``TRAINING_PROCESS`` if one ends with an error; the others are ended too. Its note holds the log.
        ModelError: ``EXTRA_MISSING`` without PyTorch.
        SetupError: as ``get_session``.
        LakemillError: as ``make_spark_converter``.
    """
    import_torch()
    from pyspark.ml.torch.distributor import TorchDistributor

    from lakemill.engines.spark.session import get_session

    get_session("training")
    converter = table if isinstance(table, SparkDatasetConverter) else make_spark_converter(table)
    distributor = TorchDistributor(num_processes=num_processes, local_mode=local_mode, use_gpu=use_gpu)
    with tempfile.TemporaryDirectory() as logs:
        try:
            return distributor.run(_run_rank, logs, converter, train_function, args, kwargs)
        except Exception as error:  # RuntimeError on this machine, Spark's own classes from a cluster
            failed = RunError(
                "TRAINING_PROCESS",
                f"one of the {num_processes} training processes ended with an error ({type(error).__name__}).",
                hint="its log is below this error's traceback.",
            )
            for text in [log.read_text(encoding="utf-8") for log in sorted(Path(logs).iterdir())] or [str(error)]:
                failed.add_note(text)
            raise failed from error


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
