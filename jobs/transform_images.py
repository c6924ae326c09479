"""Transform the images of a Delta table into another Delta table, which is overwritten.

    spark-submit --properties-file conf/spark.conf --py-files dist/lakemill.zip \
        jobs/transform_images.py --config conf/transform_images.yaml

``--set key.path=value`` goes over the file; ``lakemill`` does the same from a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.cli.job_script import run_job
from lakemill.config.transform import TransformConfig
from lakemill.transform.job import transform_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    return run_job(__doc__, TransformConfig, transform_images, argv, spark)


if __name__ == "__main__":
    raise SystemExit(main())
