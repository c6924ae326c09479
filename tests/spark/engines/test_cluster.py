"""On a real cluster: executors in processes of their own, with a Python that has no Lakemill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from tests.chaos.lake import config, make_lake
from tests.lake import add_images, factor_model, onnx_classifier, steps
from tests.spark.cluster import ROOT, Cluster
from tests.spark.predict.test_crashes import KILLER


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images and what ``cluster_work.py`` does with them: jobs, models, code of the user's."""
    lake = tmp_path_factory.mktemp("lake")
    add_images(lake / "images", 0, 12, broken=(4,))
    job = {
        "name": "digits",
        "source": {"table": f"{lake}/images"},
        "pipeline": {
            "steps": steps(onnx_classifier(lake / "model.onnx")),
            "checks": [{"name": "unsure", "expr": "out.probability < 0.5"}],
        },
        "output": {"table": f"{lake}/predictions"},
    }
    (lake / "predict.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    graph = onnx.load(lake / "model.onnx")
    onnx.save(graph, lake / "split.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (lake / "code/own").mkdir(parents=True)
    (lake / "code/own/steps.py").write_text("def first(logits):\n    return {'y': logits[:, 0]}\n")
    return lake


@pytest.fixture(scope="module")
def said(cluster: Cluster, lake: Path) -> dict[str, list[str]]:
    """Return the lines that each part of ``cluster_work.py`` printed on the cluster."""
    done = cluster.submit("tests/spark/cluster_work.py", str(lake))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = [part.splitlines() for part in done.stdout.split("== ")[1:]]
    return {name: lines for name, *lines in parts}


def test_executors_run_the_code_of_the_zip(cluster: Cluster, lake: Path, said: dict[str, list[str]]) -> None:
    rows = json.loads(said["facts"][-1])
    assert DeltaTable(lake / "facts").to_pyarrow_table().num_rows == len(rows) == 8
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
    done = Cluster(cluster.url, cluster.python, empty).submit(
        script, settings={"spark.task.maxFailures": "1", "spark.cores.max": "1"}
    )
    assert done.returncode == 1
    assert "[WORKER_MODULE_MISSING]" in done.stdout, done.stderr  # spark-submit prints all of a script's output there
    assert "--py-files dist/lakemill.zip" in done.stdout


def test_the_predict_job_runs_on_the_cluster(lake: Path, said: dict[str, list[str]]) -> None:
    """The model lies on the driver's side only; it is sent to the executors."""
    facts = json.loads(said["script"][-1])
    assert (facts["rows"], facts["rows_error"]) == (12, 1)
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().sort_by("path").to_pylist()
    assert [row["path"] for row in rows if row["error"]] == ["img/0004.png"]
    assert len({row["path"] for row in rows}) == len(rows) == 12


def test_a_session_runs_a_job_more_than_once(lake: Path, said: dict[str, list[str]]) -> None:
    """With external weights, and a package of the user's that has no ``__init__.py``."""
    assert [line for line in said["three times"] if line.startswith("ROWS")] == ["ROWS 1"] * 3
    rows = DeltaTable(lake / "firsts").to_pyarrow_table().to_pylist()
    assert [row["out"]["y"] for row in rows if not row["error"]] == [7.0] * 11


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
