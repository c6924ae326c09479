"""On a real cluster: executors in processes of their own, with a Python that has no Lakemill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from tests.chaos.lake import config, make_lake
from tests.lake import factor_model, onnx_classifier, steps, write_images
from tests.spark.cluster import ROOT, Cluster
from tests.spark.predict.test_crashes import KILLER

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_executors_run_the_code_of_the_zip(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.submit("tests/spark/cluster_facts.py", str(tmp_path / "facts"))
    assert done.returncode == 0, done.stderr[-3000:]

    rows = json.loads(done.stdout.splitlines()[-1])
    assert DeltaTable(tmp_path / "facts").to_pyarrow_table().num_rows == len(rows) == 8
    for row in rows:
        assert row["python"] == str(cluster.python)
        assert "lakemill.zip" in row["code"]
        assert str(ROOT) not in row["code"]
        assert not [name for name in row["installed"] if "lakemill" in name or "pyspark" in name]
    assert len({row["folder"] for row in rows}) == 2, "both workers took part"


def test_a_cluster_without_the_zip_says_what_to_add(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "no_zip.py"
    script.write_text(
        "from lakemill import get_session\n"
        "from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure\n"
        "def work(batches):\n"
        "    import lakemill_udfs.worker\n"
        "    yield from batches\n"
        "try:\n"
        "    get_session().range(2).mapInArrow(work, 'id long').collect()\n"
        "except SPARK_FAILURES as error:\n"
        "    raise SystemExit(str(spark_failure(error)))\n",
        encoding="utf-8",
    )
    empty = tmp_path / "empty.py"
    empty.touch()
    done = Cluster(cluster.url, cluster.python, empty).submit(script, settings={"spark.task.maxFailures": "1"})
    assert done.returncode == 1
    assert "[WORKER_MODULE_MISSING]" in done.stdout, done.stderr  # spark-submit prints all of a script's output there
    assert "--py-files dist/lakemill.zip" in done.stdout


def test_the_predict_job_runs_on_the_cluster(cluster: Cluster, spark: SparkSession, tmp_path: Path) -> None:
    """The model lies on the driver's side only; it is sent to the executors."""
    write_images(spark, tmp_path / "images", 0, 12, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    pipeline = {
        "steps": steps(tmp_path / "model.onnx"),
        "checks": [{"name": "unsure", "expr": "out.probability < 0.5"}],
    }
    job = {
        "name": "digits",
        "source": {"table": f"{tmp_path}/images"},
        "pipeline": pipeline,
        "output": {"table": f"{tmp_path}/predictions"},
    }
    (tmp_path / "predict.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")

    done = cluster.submit("jobs/predict_batch.py", "--config", str(tmp_path / "predict.yaml"), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["rows"], facts["rows_error"]) == (12, 1)

    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().sort_by("path").to_pylist()
    assert [row["path"] for row in rows if row["error"]] == ["img/0004.png"]
    assert len({row["path"] for row in rows}) == len(rows) == 12


TWICE = """
import sys
from pathlib import Path

import onnx
from lakemill import PredictConfig, get_session, predict_table

Y = {"y": {"dtype": "float32"}}
lake, own = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(own))
job = PredictConfig.load(
    name="twice",
    source={"table": f"{lake}/images"},
    pipeline={"steps": [
        {"image": {"column": "content", "mode": "L", "size": [8, 8], "layout": "flat", "output": "pixels"}},
        {"model": {"uri": f"{lake}/model.onnx"}},
        {"python": {"function": "own.steps:first", "inputs": {"logits": "logits"}, "outputs": Y}},
    ]},
    output={"table": f"{lake}/predictions"},
    mode="full",
)
spark = get_session("twice")
for run in range(3):
    if run == 2:  # a new version of the model and of the code
        graph = onnx.load(lake / "model.onnx")
        graph.doc_string = "the next version"
        (lake / "weights.bin").unlink()
        onnx.save(graph, lake / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        (own / "own" / "steps.py").write_text("def first(logits):\\n    return {'y': logits[:, 0] * 0 + 7}\\n")
    print("ROWS", predict_table(job, spark).rows_error)
"""


def test_a_session_runs_a_job_more_than_once(cluster: Cluster, spark: SparkSession, tmp_path: Path) -> None:
    """With external weights, and a package of the user's that has no ``__init__.py``."""
    import onnx

    write_images(spark, tmp_path / "images", 0, 6)
    graph = onnx.load(onnx_classifier(tmp_path / "model.onnx"))
    onnx.save(graph, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    own = tmp_path / "code" / "own"
    own.mkdir(parents=True)
    (own / "steps.py").write_text("def first(logits):\n    return {'y': logits[:, 0]}\n")
    (tmp_path / "twice.py").write_text(TWICE)
    done = cluster.submit(tmp_path / "twice.py", str(tmp_path), str(own.parent))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("ROWS")] == ["ROWS 0"] * 3
    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert [row["out"]["y"] for row in rows] == [7.0] * 6


@pytest.mark.matrix  # test_crashes.py kills workers, and each file of kills the driver
def test_an_executor_that_is_killed_is_replaced(tmp_path: Path, cluster: Cluster) -> None:
    make_lake(tmp_path)
    # A worker's parent is PySpark's daemon, and the daemon's is the executor.
    executor = 'int(Path(f"/proc/{os.getppid()}/stat").read_text().split()[3])'
    killer = KILLER.format(function="double", victim="its executor", lake=str(tmp_path), pid=executor)
    (tmp_path / "doubling.py").write_text(killer)
    raw = config(tmp_path).model_dump(exclude_unset=True, mode="json")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw))
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys\nsys.path.append({str(tmp_path)!r})\n"
        "from lakemill import PredictConfig, predict_table\n"
        f"predict_table(PredictConfig.load({str(tmp_path / 'job.yaml')!r}))\n"
    )
    done = cluster.submit(script)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists()
    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert sorted((row["number"], row["out"]["double"]) for row in rows) == [(n, 2 * n) for n in range(12)]


KEYED = """
import sys
from pathlib import Path

from lakemill import PredictConfig, get_session, predict_table
from lakemill.engines.spark.shipping import _SENT

lake = Path(sys.argv[1])
job = PredictConfig.load(
    name="demand",
    source={"table": f"{lake}/sales", "key": ["id"], "columns": ["store", "sales"]},
    pipeline={"steps": [{"models": {"by": "store", "uri": f"{lake}/models/{{store}}.onnx"}}]},
    output={"table": f"{lake}/demand"},
)
print("ROWS", predict_table(job, get_session("keyed")).rows_error)
print("SENT", sum(name.startswith("lakemill-model") for names in _SENT.values() for name in names))
"""


@pytest.mark.matrix  # tests/both/predict/test_keyed.py asks the same of one machine
def test_a_thousand_models_of_keys_travel_in_one_archive(cluster: Cluster, tmp_path: Path) -> None:
    """Each executor loads those of its rows' keys, once."""
    (tmp_path / "models").mkdir()
    for key in range(1000):
        factor_model(tmp_path / "models" / f"{key}.onnx", key)
    for half in range(2):
        numbers = np.arange(2000 * half, 2000 * (half + 1))
        stores = [str(number % 1000) for number in numbers]
        rows = pa.table({"id": numbers, "store": stores, "sales": np.ones(2000, np.float32)})
        write_deltalake(tmp_path / "sales", rows, mode="append")
    (tmp_path / "keyed.py").write_text(KEYED)
    done = cluster.submit(tmp_path / "keyed.py", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith(("ROWS", "SENT"))] == ["ROWS 0", "SENT 1"]
    rows = DeltaTable(tmp_path / "demand").to_pyarrow_table().to_pylist()
    assert all(row["out"]["demand"] == float(row["store"]) for row in rows)
    assert len(rows) == 4000
    tasks = DeltaTable(tmp_path / "demand_tasks").to_pyarrow_table().to_pylist()
    workers = len({task["pid"] for task in tasks})
    assert 1000 <= sum(task["models_loaded"] for task in tasks) <= 1000 * workers
    assert sum(task["model_load_seconds"] for task in tasks) < 0.05 * 1000 * workers  # 0.002 on a machine at rest
