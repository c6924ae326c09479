"""Score what is added to a Delta table into a Delta table, continuously, exactly once.

    spark-submit --properties-file conf/spark.conf --py-files dist/lakemill.zip \
        jobs/predict_stream.py --config conf/predict_stream.yaml

``--set key.path=value`` goes over the file; ``lakemill`` does the same from a command line. SIGTERM ends it after the
running batch; a new start goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill import PredictConfig, predict_stream
from lakemill.cli.job_script import run_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    return run_job(__doc__, PredictConfig, predict_stream, argv, spark)


if __name__ == "__main__":
    raise SystemExit(main())
