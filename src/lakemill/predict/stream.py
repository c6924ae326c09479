"""``predict_stream``: Delta to Delta, continuously, with the guarantees of ``predict_table``.

Micro-batches run in the query's own thread. Between them this thread looks for new models, ingests files if asked to,
and writes a run row at most once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakemill.config.base import interval_seconds
from lakemill.config.predict import PredictConfig
from lakemill.engines.delta_log import SourceLog
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import blob_session
from lakemill.engines.spark.errors import SPARK_FAILURES
from lakemill.engines.spark.micro_batches import MicroBatches, start_query, stream_failure
from lakemill.engines.stopping import stop_signals
from lakemill.ingest.job import Ingest
from lakemill.predict.commits import now_utc
from lakemill.predict.job import prepare, write_run
from lakemill.predict.locks import hold
from lakemill.predict.run import PredictResult, Progress, Run
from lakemill.predict.stream_progress import StreamProgress
from lakemill_udfs.errors import ConfigError, LakemillError

if TYPE_CHECKING:
    import threading

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

POLL_SECONDS = 1
MODELS_SECONDS = 5.0
"""How often a registry is asked for new models while there are no new rows."""

RUN_ROW_SECONDS = 60.0
END_SECONDS = 10.0


def predict_stream(
    config: PredictConfig, spark: SparkSession | None = None, *, progress: Progress | None = None
) -> PredictResult:
    """Score what is added to a Delta table into a Delta table, until it is stopped.

    With an interval as ``trigger`` it goes on until SIGTERM or Ctrl-C, and ends after the running batch; with
    ``available_now`` it ends when all that is there is scored. Where it was is in the checkpoint: a new start goes on
    from there, also after a crash. With ``ingest`` each look at the source is preceded by one at the files.

    Args:
        config: The job; ``mode`` must be ``incremental``.
        spark: The session; by default the active one, or a new one.
        progress: Gets a line of text for each batch: rows, rows a second, how far behind the source it is, and how long
            rows took from the commit in the source to the one in the output.

    Raises:
        ConfigError: ``STREAM_MODE``, or as ``predict_table``; nothing was scored.
        TooManyErrorsError: a batch had more errors than ``quarantine.max_ratio``; earlier batches are committed.
        RunError: Spark or the storage failed; earlier batches are committed and the next start goes on from there.
    """
    if config.mode != "incremental":
        raise ConfigError("STREAM_MODE", f"a stream is incremental; mode is '{config.mode}'.", hint="lakemill predict")
    if config.source.change_column is not None:
        raise ConfigError(
            "STREAM_MODE", "a stream cannot find changes by source.change_column.", hint="use the change feed instead."
        )
    from lakemill.engines.spark.session import get_session

    base, tell = spark or get_session(config.name), progress or (lambda _: None)
    with stop_signals() as stop, hold(config, tell), _ingest(config, base, tell) as ingest:
        ingest()  # makes the source table, if need be
        run = prepare(config, base, tell)
        return _Stream(run, stop, ingest).run_to_end()


@contextmanager
def _ingest(config: PredictConfig, spark: SparkSession, tell: Progress) -> Iterator[Callable[[], object]]:
    with blob_session(spark) if config.ingest else nullcontext() as session:
        yield Ingest(config.ingest, session, tell).once if config.ingest and session else lambda: None


@dataclass
class _Stream:
    run: Run
    stop: threading.Event
    ingest: Callable[[], object]

    def run_to_end(self) -> PredictResult:
        run, config, began = self.run, self.run.config, time.perf_counter()
        every = interval_seconds(config.trigger, once="available_now")
        self.total = replace(run.result, tasks=[])
        self.started, self.written = now_utc(), time.monotonic()
        status: LakemillError | None = None
        query, batches = start_query(
            run,
            StreamProgress(SourceLog.of(run.spark, config.source.table)),
            **({"availableNow": True} if every is None else {"processingTime": config.trigger}),
        )
        try:
            self._until_stopped(query, batches, every)
        except LakemillError as error:
            status = error
            raise
        except SPARK_FAILURES as error:
            status = stream_failure(error, batches, config)
            raise status from error
        finally:
            query.stop()
            self._write_run(batches, status)
        self.total.table_version = tables.version(run.spark, config.output.table)
        self.total.seconds = time.perf_counter() - began
        return self.total

    def _until_stopped(self, query: StreamingQuery, batches: MicroBatches, every: int | None) -> None:
        models_looked = files_looked = time.monotonic()
        while not query.awaitTermination(POLL_SECONDS):  # the pause also lets a waiting batch of new rows go first
            if self.stop.is_set():
                self.run.tell("stopping after the running batch")
                batches.end()
                _await_end(query)
                return
            now = time.monotonic()
            if now - models_looked >= MODELS_SECONDS:
                batches.look_for_models()
                models_looked = now
            if every is not None and now - files_looked >= every:
                self.ingest()
                files_looked = now
            batches.rescore()
            if now - self.written >= RUN_ROW_SECONDS:
                self._write_run(batches, None)
        while not self.stop.is_set() and batches.rescore():
            pass

    def _write_run(self, batches: MicroBatches, status: LakemillError | None) -> None:
        """Write what the batches since the last run row came to, and add it to the whole."""
        with batches.lock:
            part = replace(self.run.result)
            self.run.result.rows = self.run.result.rows_error = self.run.result.batches = 0
            self.run.result.rows_rescored = 0
            self.run.result.tasks = []
        part.seconds = time.monotonic() - self.written
        code = batches.models.unwritten_code
        batches.models.unwritten_code = None
        if part.batches or status or code:
            write_run(replace(self.run, result=part), self.started, status, code)
        self.started, self.written = now_utc(), time.monotonic()
        self.total.count(part)


def _await_end(query: StreamingQuery) -> None:
    """Let the query write down that its last batch is done; without that, the next start looks at it again."""
    end = time.monotonic() + END_SECONDS
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < end:
        time.sleep(0.05)
