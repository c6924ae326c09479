"""Two processes train one network on one version of a table, on this machine's processors."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake

from lakemill.engines.spark.session import get_session
from lakemill.training import SparkDatasetConverter, distribute, make_spark_converter
from lakemill_udfs.errors import RunError
from tests.frameworks.digits import write_digits
from tests.unit.training.training_tables import examples, write_examples

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[Any]:
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # ranks import this module
    spark = get_session("training-tests", {"spark.master": "local[2]", "spark.driver.memory": "1g"})
    yield spark
    spark.stop()


def train(converter: SparkDatasetConverter, epochs: int) -> dict[str, Any]:
    import torch
    import torch.distributed as processes

    processes.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    numbers: list[int] = []
    with converter.make_torch_dataloader(8, num_epochs=epochs, schema_fields=["number", "point", "score"]) as loader:
        for batch in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(batch["point"])[:, 0], batch["score"]).backward()
            optimizer.step()
            numbers += batch["number"].tolist()
    everyone: list[Any] = [None] * processes.get_world_size()
    processes.all_gather_object(everyone, (numbers, len(loader), model.module.weight.tolist()))
    processes.destroy_process_group()
    return {"ranks": everyone, "rows": len(converter)}


def broken(converter: SparkDatasetConverter) -> None:
    if os.environ["RANK"] == "1":
        raise ValueError("the second rank has had enough")
    import torch.distributed as processes

    processes.init_process_group("gloo")  # waits for the other one


def test_two_processes_share_a_version_s_rows(tmp_path: Path) -> None:
    table = write_examples(tmp_path / "examples", 51)
    converter = make_spark_converter(table)
    write_deltalake(table, examples(51, 9), mode="append")
    done = distribute(train, 2, 1, table=converter)
    (first, batches, weights), (second, other_batches, other_weights) = done["ranks"]
    assert sorted(first + second) == list(range(51)), "each row of the pinned version once, in one of the ranks"
    assert abs(len(first) - len(second)) <= 1
    assert batches == other_batches
    assert weights == other_weights, "the gradients were shared"


def test_a_process_that_dies_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        distribute(broken, 2, table=write_examples(tmp_path / "examples", 10, 1))
    assert raised.value.code == "TRAINING_PROCESS"
    assert "the second rank has had enough" in "".join(raised.value.__notes__)


def test_the_notebook_trains_on_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path)
    monkeypatch.setenv("LAKEMILL_LAKE", str(tmp_path))
    names = runpy.run_path(str(ROOT / "notebooks/04_distributed.py"), run_name="__main__")
    assert names["trained"]["rows"] == 3 * -(-len(names["rows"]) // 2)
    assert names["trained"]["loss"] < 1
