"""A job on the local engine dies at each of its steps; in the end nothing is lost, doubled or wrong."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.chaos.job import FAULTS
from tests.chaos.lake import LIFE_SECONDS, Verdict, judge, make_lake, start_life


def test_a_death_at_each_step_costs_nothing_but_time(tmp_path: Path) -> None:
    make_lake(tmp_path)
    for fault in FAULTS:
        life = start_life(tmp_path, fault, engine="local")
        assert life.wait(LIFE_SECONDS) == -signal.SIGKILL, (fault, (tmp_path / "log").read_text())
    last = start_life(tmp_path, "none", engine="local")
    assert last.wait(LIFE_SECONDS) == 0, (tmp_path / "log").read_text()
    assert judge(tmp_path) == Verdict((), (), ())
