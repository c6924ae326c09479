"""The engine that a test of both runs its jobs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from lakemill import PredictConfig, predict_table
from lakemill.predict.job import preview
from lakemill.predict.redo import reset_job, retry_errors, undo_run
from lakemill.predict.run import PredictResult
from lakemill.predict.status import JobStatus, job_status

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class On:
    """An engine to run a test's jobs on.

    Args:
        name: As ``engine.name`` has it.
        session: Spark's.
    """

    name: Literal["local", "spark"]
    session: SparkSession | None = None

    def job(self, config: PredictConfig) -> PredictConfig:
        """Return a job that asks for this engine."""
        return config.model_copy(update={"engine": config.engine.model_copy(update={"name": self.name})})

    def predict(self, config: PredictConfig, **options: Any) -> PredictResult:
        return predict_table(self.job(config), self.session, **options)

    def preview(self, config: PredictConfig, rows: int) -> pd.DataFrame:
        return preview(self.job(config), rows, self.session)

    def retry(self, config: PredictConfig) -> PredictResult:
        return retry_errors(self.job(config), self.session)

    def undo(self, config: PredictConfig, run_id: str) -> int:
        return undo_run(self.job(config), run_id, self.session)

    def reset(self, config: PredictConfig) -> int:
        return reset_job(self.job(config), self.session)

    def status(self, config: PredictConfig) -> JobStatus:
        return job_status(self.job(config), self.session)
