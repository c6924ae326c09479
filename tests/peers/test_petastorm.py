"""Real petastorm, in its own environment, reads what the converter's copy of a DataFrame holds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lakemill.training import make_spark_converter
from lakemill.training.frames import PARENT
from tests.unit.training.training_tables import write_examples

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PETASTORM = Path(__file__).parents[2] / ".venv-petastorm/bin/python"
READ = """
import json, sys
from petastorm import make_batch_reader
rows = []
with make_batch_reader(json.loads(sys.argv[1]), num_epochs=1, shuffle_row_groups=False) as reader:
    for batch in reader:
        columns = (batch.number, batch.score, batch.label, batch.point, batch.content)
        rows += [[int(n), float(s), str(t), p.tolist(), len(c)] for n, s, t, p, c in zip(*columns)]
print(json.dumps(rows))
"""


def test_petastorm_reads_the_copy(spark: SparkSession, tmp_path: Path) -> None:
    spark.conf.set(PARENT, (tmp_path / "cache").as_uri())
    rows = spark.read.format("delta").load(write_examples(tmp_path / "examples", 30)).where("number % 2 = 0")
    converter = make_spark_converter(rows.repartition(2), parquet_row_group_size_bytes=2**20)
    spark.conf.unset(PARENT)
    command = [PETASTORM, "-c", READ, json.dumps(converter.file_urls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    read = sorted(json.loads(done.stdout.splitlines()[-1]))
    with converter.make_loader(schema_fields=["number", "score", "label", "point", "content"]) as loader:
        ours = [
            [int(n), float(s), t, p.tolist(), len(c)]
            for batch in loader
            for n, s, t, p, c in zip(*batch.values(), strict=True)
        ]
    assert len(read) == 15
    assert read == sorted(ours)
