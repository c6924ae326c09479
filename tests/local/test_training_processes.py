"""A training's worker processes: the batches of its threads, and what they cannot do is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lakemill import ImageStep
from lakemill.training.converter import make_spark_converter
from lakemill.training.transform_spec import TransformSpec
from tests.unit.training.test_loader import EDITS, PLAIN, code_of, double
from tests.unit.training.training_tables import write_examples


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples")


def test_processes_give_the_batches_of_threads(table: str) -> None:
    step = ImageStep(column="content", mode="L", size=(8, 8), output="pixels")
    spec = TransformSpec(double, edit_fields=EDITS)
    arguments = {
        "schema_fields": [*PLAIN, "pixels"],
        "transform_spec": spec,
        "shuffling_queue_capacity": 40,
        "num_epochs": 2,
        "workers_count": 2,
    }
    converter = make_spark_converter(table, images=step)
    with (
        converter.make_loader(16, **arguments) as threads,
        converter.make_loader(16, reader_pool_type="process", **arguments) as processes,
    ):
        for one, other in zip(threads, processes, strict=True):
            assert {name: array.tobytes() for name, array in one.items()} == {
                name: array.tobytes() for name, array in other.items()
            }


def test_what_processes_cannot_do_is_said(table: str) -> None:
    assert code_with(table, TransformSpec(lambda frame: frame)) == "TRAINING_TRANSFORM"
    assert code_with(table, TransformSpec(end)) == "TRAINING_WORKER"
    assert code_with(table, TransformSpec(lose)) == "TRAINING_TRANSFORM", "an error keeps its code on the way"
    converter = make_spark_converter(table)
    assert code_of(lambda: converter.make_loader(reader_pool_type="dummy")) == "TRAINING_ARGUMENT"


def code_with(table: str, spec: TransformSpec) -> str:
    """Return the code of the error that one process ends with."""
    arguments = {"schema_fields": PLAIN, "transform_spec": spec, "reader_pool_type": "process", "workers_count": 1}
    with make_spark_converter(table).make_loader(**arguments) as loader:
        return code_of(lambda: list(loader))


def end(frame: Any) -> Any:
    os._exit(1)


def lose(frame: Any) -> Any:
    return frame[frame["number"] % 2 == 0]
