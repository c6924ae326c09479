"""For spark-submit, by test_cluster.py: all that one driver does there, with a line ``== NAME`` before each part.

Use: cluster_work.py LAKE

A driver and its executors take most of a minute to start, and each part a few seconds.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pyarrow as pa

from lakemill import PredictConfig, get_session, predict_table

Y = {"y": {"dtype": "float32"}}


def score_by_script(lake: Path) -> None:
    """Run the job's script as spark-submit does; it makes the session."""
    sys.argv = ["jobs/predict_batch.py", "--config", f"{lake}/predict.yaml", "--json"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


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


def tell_facts(lake: Path) -> None:
    """Print as JSON what the executors run, and write it to a Delta table."""
    spark = get_session()
    rows = spark.range(0, 8, numPartitions=8).mapInArrow(
        facts, "python string, code string, folder string, installed array<string>"
    )
    rows.write.format("delta").save(f"{lake}/facts")
    print(json.dumps([row.asDict() for row in spark.read.format("delta").load(f"{lake}/facts").collect()]))


def score_three_times(lake: Path) -> None:
    """Run a job twice, and once more after its model and its code have changed."""
    sys.path.insert(0, f"{lake}/code")
    job = PredictConfig.load(
        name="twice",
        source={"table": f"{lake}/images"},
        pipeline={
            "steps": [
                {"image": {"column": "content", "mode": "L", "size": [8, 8], "layout": "flat", "output": "pixels"}},
                {"model": {"uri": f"{lake}/split.onnx"}},
                {"python": {"function": "own.steps:first", "inputs": {"logits": "logits"}, "outputs": Y}},
            ]
        },
        output={"table": f"{lake}/firsts"},
        mode="full",
    )
    for run in range(3):
        if run == 2:
            graph = onnx.load(lake / "split.onnx")
            graph.doc_string = "the next version"
            (lake / "weights.bin").unlink()
            onnx.save(graph, lake / "split.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
            (lake / "code/own/steps.py").write_text("def first(logits):\n    return {'y': logits[:, 0] * 0 + 7}\n")
        print("ROWS", predict_table(job, get_session()).rows_error)


PARTS = {"script": score_by_script, "facts": tell_facts, "three times": score_three_times}

if __name__ == "__main__":
    lake = Path(sys.argv[1])
    for name, part in PARTS.items():
        print("==", name, flush=True)
        part(lake)
        sys.stdout.flush()
