"""Progress is what the rows say, on Spark: the same events as on the local engine, few of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.events import World

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEQUENCES = (
    ("append", "run", "append", "restore_output", "run", "older_checkpoint"),
    ("append", "run", "append", "run", "undo", "lose_checkpoint", "other_job", "run"),
    ("append", "full", "append", "killed_run", "retry", "replace_source"),
    ("append", "run", "append", "where", "append", "missing", "delete_rows", "lose_output", "retry"),
)


@pytest.mark.parametrize("events", SEQUENCES, ids="-".join)
def test_each_row_has_one_prediction_whatever_happened(
    tmp_path: Path, spark: SparkSession, events: tuple[str, ...]
) -> None:
    world, chance = World(tmp_path, engines=("spark",), session=spark), random.Random(len(events))  # noqa: S311 -- no secret
    world.append(chance)
    for event in ("run", "keep_checkpoint", *events):
        world.happen(event, chance)
    world.check(chance)
    world.append(chance)
    world.check(chance)
