"""One job on both engines in turn, which dies in each life: nothing is lost, doubled or wrong in the end."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.chaos.job import FAULTS
from tests.chaos.lake import LIFE_SECONDS, Verdict, add_rows, judge, make_lake, start_life

LIVES = ["local", "spark", "local"] * 2


@pytest.mark.matrix  # test_local_engine.py takes turns without kills; tests/local and tests/chaos kill without turns
def test_engines_take_turns_under_kills(tmp_path: Path) -> None:
    make_lake(tmp_path)
    chance = random.Random(5)  # noqa: S311 -- the same lives in every run
    for engine in LIVES:
        fault = chance.choice(sorted(FAULTS))
        life = start_life(tmp_path, fault, engine=engine)
        assert life.wait(LIFE_SECONDS) == -signal.SIGKILL, (engine, fault, (tmp_path / "log").read_text())
        for _ in range(chance.randint(0, 2)):
            add_rows(tmp_path)
    for engine in ("spark", "local"):  # the second finds nothing to do
        last = start_life(tmp_path, "none", engine=engine)
        assert last.wait(LIFE_SECONDS) == 0, (tmp_path / "log").read_text()
        assert judge(tmp_path) == Verdict((), (), ())
