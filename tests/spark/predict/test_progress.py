"""Progress is what the rows say, on Spark and where engines take turns: the same events as on the local engine, few."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.events import EVENTS, World, live

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXAMPLES = int(os.environ.get("LAKEMILL_EXAMPLES", "1"))
SEQUENCE = st.lists(st.sampled_from([*["append", "run"] * 4, "killed_run", *sorted(EVENTS)]), max_size=8)
SEQUENCES = (
    ("append", "run", "append", "restore_output", "run", "older_checkpoint"),
    ("append", "run", "append", "run", "undo", "lose_checkpoint", "other_job", "run"),
    ("append", "full", "append", "killed_run", "retry", "replace_source"),
    ("append", "run", "append", "where", "append", "missing", "delete_rows", "lose_output", "retry"),
)


@pytest.mark.matrix
@pytest.mark.parametrize("events", SEQUENCES, ids="-".join)
def test_each_row_has_one_prediction_whatever_happened(
    tmp_path: Path, spark: SparkSession, events: tuple[str, ...]
) -> None:
    live(World(tmp_path, engines=("spark",), session=spark), ("run", "keep_checkpoint", *events), len(events))


@pytest.mark.matrix
@pytest.mark.parametrize("changes", ["append", "upsert"])
@given(events=SEQUENCE, seed=st.integers(0, 10**6))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@example(events=["run", "append", "run", "killed_run", "append", "killed_run", "run"], seed=1)
def test_engines_take_turns_whatever_happened(spark: SparkSession, changes: str, events: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live(World(Path(folder), engines=("local", "spark"), session=spark, changes=changes), events, seed)
