"""For spark-submit, by test_cluster.py: prints as JSON what the executors run, and writes it to a Delta table.

Use: cluster_facts.py TABLE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lakemill import get_session


def facts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import lakemill_udfs.worker

    installed = [path.name for path in Path(sys.prefix).glob("lib/*/site-packages/*")]
    for batch in batches:
        row = {
            "python": sys.executable,
            "code": lakemill_udfs.worker.__file__,
            "folder": str(Path.cwd()),
            "installed": installed,
        }
        yield pa.RecordBatch.from_pylist([row] * batch.num_rows)


if __name__ == "__main__":
    spark = get_session()
    rows = spark.range(0, 8, numPartitions=8).mapInArrow(
        facts, "python string, code string, folder string, installed array<string>"
    )
    rows.write.format("delta").save(sys.argv[1])
    print(json.dumps([row.asDict() for row in spark.read.format("delta").load(sys.argv[1]).collect()]))
