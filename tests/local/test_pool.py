"""The pool: each item once, bounded, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakemill.engines.local.pool import Kind, Workers, run
from lakemill_udfs.errors import ModelError, RunError
from tests.local.pool_work import RELEASED, Doubling

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("kind", ["threads", "processes"])


def two(kind: Kind) -> Workers:
    return Workers(kind, 2, 1)


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    """Let no test end with children that it began without: other files' tests may have left some."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    yield
    assert set(children.read_text().split()) <= set(before)


@BOTH
def test_each_item_once(kind: Kind) -> None:
    told: list[int] = []
    results = list(run(Doubling(), range(20), two(kind), told.append))
    assert sorted(number for number, _, _ in results) == [2 * number for number in range(20)]
    assert sum(told) == 200
    assert len({pid for _, _, pid in results} - {os.getpid()}) == (2 if kind == "processes" else 0)


def test_short_work_needs_no_process() -> None:
    results = run(Doubling(), range(20), Workers("processes", 2, 1, begins_here=True), here=Doubling())
    assert sorted(results) == [(2 * number, 64, os.getpid()) for number in range(20)]


def test_processes_come_to_help_with_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakemill.engines.local.pool.ALONE_SECONDS", 0.05)
    told: list[int] = []

    def on_rows(rows: int) -> None:
        told.append(rows)
        RELEASED.set()  # the first item, which a thread of this process holds on to, until a process has done another

    workers = Workers("processes", 2, 1, begins_here=True)
    results = list(run(Doubling(), ["hold", *range(9)], workers, on_rows, here=Doubling()))
    assert sorted(number for number, _, _ in results) == [0, *range(0, 18, 2)]
    assert sum(told) == 100
    assert [number for number, _, pid in results if pid == os.getpid()] == [0]


@BOTH
def test_items_are_taken_when_a_worker_is_free(kind: Kind) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = run(Doubling(), items(), two(kind))
    for done in range(1, 6):
        next(results)
        assert len(taken) <= done + 3
    results.close()


def test_a_death_costs_its_item_only() -> None:
    told: list[int] = []
    results = list(run(Doubling(most=16), [1, "die", 2, 3], two("processes"), told.append))
    assert sorted(results[i][0] for i in range(4)) == [0, 2, 4, 6]
    assert {batch for number, batch, _ in results if not number} == {16}
    assert {batch for number, batch, _ in results if number} == {64}
    assert sum(told) == 40  # rows of lost attempts are taken back


@BOTH
def test_no_memory_is_tried_with_less(kind: Kind) -> None:
    ((_, batch, _),) = run(Doubling(most=32), ["memory"], two(kind))
    assert batch == 32


def test_a_death_that_comes_back_ends_the_run() -> None:
    with pytest.raises(RunError, match=r"\[WORKER_DIED\].*SIGKILL in each of 5 attempts"):
        list(run(Doubling(), [1, "die"], two("processes")))


@BOTH
def test_errors_keep_their_code_and_no_row(kind: Kind) -> None:
    with pytest.raises(ModelError, match=r"\[MODEL_LOAD\] does not load. Hint: mend it."):
        list(run(Doubling(), [1, "coded"], two(kind)))
    with pytest.raises(RunError, match=r"\[WORKER_FAILED\] ValueError in __call__ \(pool_work.py") as raised:
        list(run(Doubling(), ["secret"], two(kind)))
    assert "row's secret" not in str(raised.value)


@BOTH
def test_a_caller_that_gives_up_is_not_kept_waiting(kind: Kind) -> None:
    results = run(Doubling(), ["slow", 1], two(kind))
    next(results)
    started = time.perf_counter()
    results.close()
    assert time.perf_counter() - started < 2
    assert not [thread for thread in threading.enumerate() if thread.name == "lakemill-worker"]


PROGRAM = """
    import sys
    from lakemill.engines.local.pool import Workers, run
    from tests.local.pool_work import RELEASED, Doubling

    print("started", flush=True)  # no guard of __main__: a script without one works as well
    for result in run(Doubling(), {items}, Workers("{kind}", 2, 1), lambda rows: print("rows", flush=True)):
        print(result[0], flush=True)
"""


def program(tmp_path: Path, items: str, kind: Kind = "processes") -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PROGRAM).format(items=items, kind=kind))
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "udfs"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}, text=True
    )


def test_a_script_needs_no_guard_and_stdout_stays_its_own(tmp_path: Path) -> None:
    with program(tmp_path, "['print', 4]") as done:
        out = done.communicate(timeout=30)[0]
    assert done.returncode == 0
    assert sorted(out.split()) == ["0", "8", "rows", "rows", "started"]


def is_running(pid: str) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"  # ended, if not yet waited for


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@BOTH
def test_the_parents_death_ends_all(tmp_path: Path, number: signal.Signals, kind: Kind) -> None:
    """The pipe of its stdout ends too: a worker that lived on would hold it open."""
    with program(tmp_path, "['slow', 'slow']", kind) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(3)][-1] == "rows\n"
        workers = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(workers) == (2 if kind == "processes" else 0)
        started = time.perf_counter()
        parent.send_signal(number)
        parent.communicate(timeout=10)
        assert time.perf_counter() - started < 3
        time.sleep(0.2)
        assert not [pid for pid in workers if is_running(pid)]
