"""What takes time before rows can be scored and written, begun while something else goes on.

Delta works out the state of a table before it writes to it with a transaction: to look the transaction's id up, a write
needs the whole state, most of a second's work for Delta even if the table is empty. Asked for before, it is there when
the rows are. A Python worker starts and loads the models while Delta does what comes before the first task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES
from lakemill.engines.spark.shipping import is_local
from lakemill_udfs.worker import load_ahead

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill_udfs.plan import PredictPlan

LOADED: set[tuple[str, str]] = set()
"""Applications and versions of pipelines for which a worker was begun."""


def look_ahead(spark: SparkSession, table: str) -> None:
    """Let Delta work out a table's state in a thread of its own; if that fails, the write says why.

    Args:
        spark: The session.
        table: Path or catalog name.
    """
    _begin("lakemill-look-ahead", lambda: tables.detail(spark, table))


def begin_worker(spark: SparkSession, plan: PredictPlan) -> None:
    """Let a Python worker of this machine start and load a plan's models, once for each application and pipeline.

    It takes one task of one worker: the others would take the processors from what goes on. A model that does not load
    fails in the tasks that use it.

    Args:
        spark: The session; on a cluster, and over Spark Connect, nothing is done.
        plan: As it was shipped.
    """
    if hasattr(spark, "cloneSession") or not is_local(spark):
        return
    if spark.conf.get("spark.python.worker.reuse", "true") == "false":
        return
    loaded = (str(spark.conf.get("spark.app.id", "")), plan.pipeline.version)
    if loaded not in LOADED:
        LOADED.add(loaded)
        one = spark.range(0, 1, 1, 1).mapInArrow(partial(load_ahead, plan), "id long")
        _begin("lakemill-worker", one.collect)


def _begin(name: str, work: Callable[[], object]) -> None:
    # No end waits for it: what it learns is of use to this process alone.
    threading.Thread(target=_quietly, args=(work,), name=name, daemon=True).start()


def _quietly(work: Callable[[], object]) -> None:
    with suppress(*SPARK_FAILURES):
        work()
