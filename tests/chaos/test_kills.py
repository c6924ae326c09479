"""The driver is killed with SIGKILL at each step of a batch; the next start mends everything."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.chaos.job import FAULTS
from tests.chaos.lake import LIFE_SECONDS, Verdict, judge, make_lake, start_life

AROUND_THE_COMMIT = ("with files but no commit", "after the commit, before the checkpoint")
"""Where an engine's own doing decides; the other steps are code that both share, and tests/local kills there."""


@pytest.mark.parametrize(
    "faults", [AROUND_THE_COMMIT, pytest.param(tuple(FAULTS), marks=pytest.mark.matrix)], ids=["commit", "each step"]
)
def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, faults: tuple[str, ...]) -> None:
    make_lake(tmp_path)
    for fault in faults:
        killed = start_life(tmp_path, fault)
        assert killed.wait(LIFE_SECONDS) == -signal.SIGKILL, f"{fault}: {(tmp_path / 'log').read_text()[-3000:]}"
    last = start_life(tmp_path, "none")
    assert last.wait(LIFE_SECONDS) == 0, (tmp_path / "log").read_text()[-3000:]
    recovered = [int(version) for version in (tmp_path / "recovered").read_text().split()]
    assert len(recovered) == len(faults) + 1
    for version in recovered:
        assert judge(tmp_path, version) == Verdict((), (), ())
    assert judge(tmp_path) == Verdict((), (), ())
    assert DeltaTable(tmp_path / "numbers").version() == len(faults)
    assert "committed by the last run already" in (tmp_path / "log").read_text()
