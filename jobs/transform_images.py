"""Transform the images of a Delta table into another Delta table, which is overwritten.

Submitted to a cluster:

    spark-submit --py-files dist/lakemill.zip jobs/transform_images.py --config conf/transform_images.yaml

``lakemill transform`` does the same from a command line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.cli import guarded, tell
from lakemill.transform import transform_images
from lakemill.transform_config import TransformConfig
from lakemill.transform_sample import write_sample

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the job")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the file")
    parser.add_argument("--sample", type=int, metavar="N", help="only N images, on the driver, as a picture")
    parser.add_argument("--json", action="store_true", help="last line of stdout: one JSON object")
    arguments = parser.parse_args(argv)

    def run() -> None:
        config = TransformConfig.load(arguments.config, arguments.set)
        if arguments.sample:
            tell(f"Before and after: {write_sample(config, arguments.sample, spark)}")
            return
        result = transform_images(config, spark, progress=tell)
        tell(result.summary())
        if arguments.json:
            print(json.dumps(result.to_dict()))

    return guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
