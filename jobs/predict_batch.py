"""Score a Delta table into a Delta table; what is new since the last run, exactly once.

spark-submit --py-files dist/lakemill.zip jobs/predict_batch.py --config conf/predict_batch.yaml
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill import PredictConfig, predict_table
from lakemill.cli import guarded, tell

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    """Read the configuration, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the job")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="over the YAML file; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="last line of stdout: one JSON object")
    arguments = parser.parse_args(argv)

    def run() -> None:
        result = predict_table(PredictConfig.load(arguments.config, arguments.set), spark, progress=tell)
        tell(result.summary())
        if arguments.json:
            print(json.dumps(result.to_dict()))

    return guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
