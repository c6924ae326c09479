"""Whatever people, tools and crashes do: after the next run each row of the source has one prediction."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.events import EVENTS, World, live

EXAMPLES = int(os.environ.get("LAKEMILL_EXAMPLES", "4"))
OFTEN = ["append"] * 4 + ["run"] * 4 + ["undo", "where", "killed_run", "restore_output"]
SEQUENCE = st.lists(st.sampled_from([*OFTEN, *sorted(EVENTS)]), max_size=12)


@pytest.mark.parametrize(("changes", "keys"), [("append", "unique"), ("append", "any"), ("upsert", "unique")])
@given(events=SEQUENCE, seed=st.integers(0, 10**6))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@example(events=["append", "run", "append", "run", "append", "run", "undo"], seed=0)
@example(events=["run", "append", "run", "keep_checkpoint", "append", "run", "append", "older_checkpoint"], seed=0)
@example(events=["run", "append", "run", "replace_source", "run"], seed=1)
@example(events=["run", "append", "run", "lose_output", "retry"], seed=0)
@example(events=["run", "append", "where", "append", "run", "lose_checkpoint"], seed=2)
@example(events=["append", "append", "where", "append"], seed=0)
@example(events=["where", "overwrite_source", "append", "missing"], seed=132)
@example(events=["run", "delete_source_rows", "missing", "append"], seed=1)
@example(events=["delete_some", "append", "run", "append", "delete_source_rows", "retry"], seed=175)
@example(events=["delete_rows", "where", "replace_source", "delete_some"], seed=488995)
def test_each_row_has_one_prediction_whatever_happened(changes: str, keys: str, events: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live(World(Path(folder), changes=changes, keys=keys), events, seed)
