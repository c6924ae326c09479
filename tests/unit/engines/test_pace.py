"""Long work says every few seconds how far it is; short work says nothing."""

from __future__ import annotations

import pytest

from lakemill.engines.pace import Pace, duration


def lines(total: int | None, *, rows: int, seconds: float, times: int) -> list[str]:
    """Return what is said when so many rows are done every so many seconds."""
    now, said = 0.0, list[str]()
    pace = Pace(said.append, total, every_seconds=5, clock=lambda: now)
    for _ in range(times):
        now += seconds
        pace(rows)
    return said


def test_rows_rate_and_time_left() -> None:
    assert lines(60_000, rows=1_000, seconds=1, times=11) == [
        "5,000 of 60,000 rows, 1,000 rows/s, 55 s left",
        "10,000 of 60,000 rows, 1,000 rows/s, 50 s left",
    ]
    assert lines(100, rows=1, seconds=5, times=1) == ["1 of 100 rows, 0.2 rows/s, 8 min left"]


def test_without_a_total_there_is_no_time_left() -> None:
    assert lines(None, rows=16, seconds=5, times=1) == ["16 rows, 3.2 rows/s"]


def test_more_rows_than_were_counted_before_are_no_nonsense() -> None:
    assert lines(10, rows=16, seconds=5, times=1) == ["16 of 16 rows, 3.2 rows/s, 1 s left"]


def test_short_work_says_nothing() -> None:
    assert lines(100, rows=50, seconds=1, times=2) == []


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (170, "3 min"), (7_800, "2 h 10 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
