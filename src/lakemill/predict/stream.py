"""``predict_stream``: Delta to Delta, continuously, with the guarantees of ``predict_table``.

Between the slices it looks for new models, ingests files if asked to, and writes a run row at most once a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakemill.config.base import interval_seconds, must_be
from lakemill.config.predict import PredictConfig
from lakemill.engines.choice import open_engine
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Engine, Watch, opened
from lakemill.engines.stopping import stop_signals
from lakemill.ingest.job import Ingest
from lakemill.predict.before_engine import check_before_engine
from lakemill.predict.commits import now_utc
from lakemill.predict.incremental import Slices, following
from lakemill.predict.job import write_run
from lakemill.predict.locks import hold
from lakemill.predict.needs import predict_needs
from lakemill.predict.ownership import check_own
from lakemill.predict.preparing import prepare
from lakemill.predict.run import PredictResult, Progress, Run
from lakemill.predict.stream_progress import StreamProgress
from lakemill_udfs.errors import ConfigError, LakemillError

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession

MODELS_SECONDS = 5.0
"""How often a registry is asked for new models, and the source whether it is the same, while there are no new rows."""

RUN_ROW_SECONDS = 60.0


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
    must_be(config, PredictConfig)
    if config.mode != "incremental":
        raise ConfigError("STREAM_MODE", f"a stream is incremental; mode is '{config.mode}'.", hint="lakemill predict")
    if config.source.change_column is not None:
        raise ConfigError(
            "STREAM_MODE", "a stream cannot find changes by source.change_column.", hint="use the change feed instead."
        )
    check_own(config, spark)
    check_before_engine(config)
    tell = progress or (lambda _: None)
    with stop_signals(lambda: tell("stopping after the running batch")) as stop, hold(config, tell):
        engine = open_engine(spark, predict_needs(config), config.engine, tell)
        with _ingest(config, engine, tell) as ingest:
            ingest()  # makes the source table, if need be
            return _Stream(prepare(config, engine, tell), stop, ingest).run_to_end()


@contextmanager
def _ingest(config: PredictConfig, engine: Engine, tell: Progress) -> Iterator[Callable[[], object]]:
    if config.ingest is None:
        yield lambda: None
        return
    with engine.for_images() as images:
        yield Ingest(config.ingest, images, tell).once


@dataclass
class _Stream:
    run: Run
    stop: threading.Event
    ingest: Callable[[], object]

    def run_to_end(self) -> PredictResult:
        run, config, began = self.run, self.run.config, time.perf_counter()
        self.every_seconds = interval_seconds(config.trigger, once="available_now")
        self.total = replace(run.result, tasks=[])
        self.started, self.written = now_utc(), time.monotonic()
        self.models_looked = self.files_looked = time.monotonic()
        status: LakemillError | None = None
        followed = following(run, every_seconds=self.every_seconds)
        self.slices = Slices(run, StreamProgress(DeltaLog(run.source.snapshot.location)))
        try:
            run.engine.follow(followed, self.slices, Watch(self.stop, self._between, self.slices.rescore))
        except LakemillError as error:
            status = error
            raise
        finally:
            self._write_run(status)
        self.total.table_version = opened(run.engine, config.output.table).version
        self.total.seconds = time.perf_counter() - began
        return self.total

    def _between(self) -> None:
        now = time.monotonic()
        if now - self.models_looked >= MODELS_SECONDS:
            self.slices.look_for_models()
            self.slices.look_at_source()
            self.models_looked = now
        if self.every_seconds is not None and now - self.files_looked >= self.every_seconds:
            self.ingest()
            self.files_looked = now
        self.slices.rescore()
        if now - self.written >= RUN_ROW_SECONDS:
            self._write_run(None)

    def _write_run(self, status: LakemillError | None) -> None:
        """Write what the batches since the last run row came to, and add it to the whole."""
        result = self.run.result
        part = replace(result)
        result.rows = result.rows_error = result.batches = result.rows_rescored = 0
        result.tasks = []
        part.seconds = time.monotonic() - self.written
        models = self.slices.models
        code, models.unwritten_code = models.unwritten_code, None
        if part.batches or status or code:
            write_run(replace(self.run, result=part), self.started, status, code)
        self.started, self.written = now_utc(), time.monotonic()
        self.total.count(part)
