"""How far Spark is with long work, in a line every few seconds: tasks done, tasks there are, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakemill.engines.pace import EVERY_SECONDS, duration
from lakemill.engines.spark.errors import SPARK_FAILURES

if TYPE_CHECKING:
    from pyspark import SparkStageInfo, StatusTracker
    from pyspark.sql import SparkSession


@contextmanager
def telling(spark: SparkSession, tell: Callable[[str], None] | None) -> Iterator[None]:
    """Say how far the session's largest running stage is, while the context lasts.

    Spark counts tasks, not rows, and those of all that runs in the session. Over Spark Connect nothing is said: only
    the server knows its stages.

    Args:
        spark: Runs the work.
        tell: Gets the lines, from a thread of its own; None for none.
    """
    if tell is None or hasattr(spark, "cloneSession"):  # Spark Connect's
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(spark.sparkContext.statusTracker(), tell, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(tracker: StatusTracker, tell: Callable[[str], None], ended: threading.Event) -> None:
    seen: dict[int, float] = {}
    while not ended.wait(EVERY_SECONDS):
        try:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        except SPARK_FAILURES:  # of a session that ends: the work itself says why
            return
        largest = max((stage for stage in stages if stage), key=lambda stage: stage.numTasks, default=None)
        if largest is not None:
            now = time.monotonic()
            tell(_line(largest, now - seen.setdefault(largest.stageId, now - EVERY_SECONDS)))


def _line(stage: SparkStageInfo, seconds: float) -> str:
    """Return how far a stage is that has run for about ``seconds``."""
    done = stage.numCompletedTasks
    ahead = f", {duration((stage.numTasks - done) * seconds / done)} left" if done else ""
    return f"{done:,} of {stage.numTasks:,} tasks{ahead}"
