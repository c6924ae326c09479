"""Two processes train one TensorFlow model on one version of a table, in the tasks of a barrier job."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake

from lakemill.engines.spark.session import get_session
from lakemill.training import SparkDatasetConverter, distribute, make_spark_converter
from tests.unit.training.training_tables import examples, write_examples

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[Any]:
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # ranks import this module
    spark = get_session("training-tests", {"spark.master": "local[2]", "spark.driver.memory": "1g"})
    yield spark
    spark.stop()


def train(converter: SparkDatasetConverter, seen: str) -> dict[str, Any]:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        weights = tf.Variable(tf.zeros((2, 1)))

    def step(points: Any, scores: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((points @ weights - scores[:, None]) ** 2)
        gradients = tape.gradient(loss, [weights])
        shared = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        weights.assign_sub(1e-4 * shared[0])

    run = tf.function(lambda points, scores: strategy.run(step, args=(points, scores)))
    numbers = []
    with converter.make_tf_dataset(8, schema_fields=["number", "point", "score"], last="pad") as dataset:
        for row in dataset:
            run(row.point, row.score)
            numbers += row.number.numpy().tolist()
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    found = {"numbers": numbers, "weights": weights.numpy().tolist(), "replicas": strategy.num_replicas_in_sync}
    (Path(seen) / f"{rank}.json").write_text(json.dumps(found))
    return found


def test_two_processes_share_a_version_s_rows(tmp_path: Path) -> None:
    table = write_examples(tmp_path / "examples", 48)
    converter = make_spark_converter(table)
    write_deltalake(table, examples(48, 9), mode="append")
    done = distribute(train, 2, str(tmp_path), table=converter, framework="tensorflow")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert done == first
    assert sorted(first["numbers"] + second["numbers"]) == list(range(48)), "each row of the pinned version once"
    assert first["replicas"] == 2
    assert first["weights"] == second["weights"] != [[0], [0]], "the gradients were shared"
