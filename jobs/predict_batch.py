"""Score a Delta table into a Delta table; what is new since the last run, exactly once.

    spark-submit --properties-file conf/spark.conf --py-files dist/lakemill.zip \
        jobs/predict_batch.py --config conf/predict_batch.yaml

``--set key.path=value`` goes over the file; ``lakemill`` does the same from a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill import PredictConfig, predict_table
from lakemill.cli.job_script import run_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    return run_job(__doc__, PredictConfig, predict_table, argv, spark)


if __name__ == "__main__":
    raise SystemExit(main())
