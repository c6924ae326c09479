"""Image files or folders to a Delta table; run again, it adds what is new.

    spark-submit --properties-file conf/spark.conf --py-files dist/lakemill.zip \
        jobs/ingest_images.py --config conf/ingest_images.yaml

``--set key.path=value`` goes over the file; ``lakemill`` does the same from a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill import IngestConfig, ingest_images
from lakemill.cli.job_script import run_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    return run_job(__doc__, IngestConfig, ingest_images, argv, spark)


if __name__ == "__main__":
    raise SystemExit(main())
