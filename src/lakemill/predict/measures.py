"""What runs measured: a row a run in ``<output>_runs`` and a row a task in ``<output>_tasks``, best effort."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import writer_beside
from lakemill.engines.engine import Engine
from lakemill.engines.output_tables import check_schema
from lakemill_udfs.errors import LakemillError, SetupError
from lakemill_udfs.plan import TASK

logger = logging.getLogger(__name__)

STAGES = ("scan_wait", "decode", "preprocess", "predict", "format")
KEYS: list[tuple[str, Any]] = [("run_id", pa.string()), ("job", pa.string())]
RUN = pa.struct(
    [
        *KEYS,
        ("mode", pa.string()),
        ("query_id", pa.string()),
        ("started", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("status", pa.string()),
        ("code", pa.string()),
        ("rows", pa.int64()),
        ("rows_error", pa.int64()),
        ("bytes", pa.int64()),
        ("batches", pa.int64()),
        ("source_version", pa.int64()),
        ("pipeline", pa.string()),
        ("pipeline_version", pa.string()),
        *((f"{stage}_seconds", pa.float64()) for stage in STAGES),
        ("model_load_seconds", pa.float64()),
    ]
)


def write_measures(
    engine: Engine, config: PredictConfig, run: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]
) -> None:
    """Append a run's row to ``<output>_runs`` and its tasks' to ``<output>_tasks``; a failure is logged only.

    Args:
        engine: Where the job runs.
        config: The job.
        run: The fields of ``RUN`` that are not sums over the tasks.
        tasks: What each task measured, with its ``batch_id``.
    """
    sums = {f"{stage}_seconds": sum(task[f"{stage}_seconds"] for task in tasks) for stage in (*STAGES, "model_load")}
    row = {**run, **sums, "bytes": sum(task["bytes"] for task in tasks)}
    origin = {"run_id": run["run_id"], "job": run["job"]}
    task_type = pa.struct([*KEYS, ("batch_id", pa.int64()), *TASK])
    rows: dict[table_names.Suffix, pa.StructArray] = {
        "_runs": pa.array([row], RUN),
        "_tasks": pa.array([origin | dict(task) for task in tasks], task_type),
    }

    light = writer_beside(engine, config.output.table)

    def append(suffix: table_names.Suffix) -> None:
        table = table_names.sibling(config.output.table, suffix)
        held = pa.Table.from_struct_array(rows[suffix])
        try:
            _append(light, table, held)
        except SetupError:  # it has a feature that the local engine does not read or write
            _append(engine, table, held)

    # Side by side: nearly all of a small Delta write is waiting for the log.
    with ThreadPoolExecutor(len(rows)) as pool:
        written = [pool.submit(append, suffix) for suffix in rows if len(rows[suffix])]
    try:
        for write in written:
            write.result()
    except LakemillError as error:
        logger.warning("the run's measures were not written: %s", error)


def _append(engine: Engine, table: str, rows: pa.Table) -> None:
    check_schema(engine, table, pa.schema(KEYS))  # a table of something else gets no rows and no columns
    engine.append(engine.given(rows), table)
