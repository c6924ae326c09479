"""``make chaos``: a job is killed at random times, again and again, and things happen to its tables between its lives.

In the end nothing may be lost or doubled.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.chaos.lake import LIFE_SECONDS, judge, kill, make_lake, start_life
from tests.events import EVENTS, World

BETWEEN = (
    *["nothing"] * 4,
    "restore_output",
    "lose_output",
    "lose_checkpoint",
    "keep_checkpoint",
    "older_checkpoint",
    "cut_checkpoint",
    "optimize",
)
"""What happens to the tables and the checkpoint between two lives."""

LONGEST_LIFE_SECONDS = 20.0
"""From the start of the session: long enough to recover in a cold JVM and to score some more."""


def main() -> int:
    """Kill, count, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311 -- the same times in every run
    with tempfile.TemporaryDirectory(prefix="lakemill-chaos-") as folder:
        lake = Path(folder)
        make_lake(lake)
        for number in range(1, arguments.kills + 1):
            after = chance.uniform(0, LONGEST_LIFE_SECONDS)
            live(lake, after)
            event = happen(lake, chance)
            said = f"kill {number} of {arguments.kills}: {after:.2f} s after the session's start, then {event}"
            print(said, flush=True)
        last = start_life(lake, "none")
        if last.wait(LIFE_SECONDS):
            print((lake / "log").read_text()[-3000:])
            return 1
        verdict = judge(lake)
    print(f"lost: {len(verdict.lost)}, doubled: {len(verdict.doubled)}, wrong: {len(verdict.wrong)}")
    return 1 if verdict.lost or verdict.doubled or verdict.wrong else 0


def happen(lake: Path, chance: random.Random) -> str:
    """Let something happen to the lake; return its name."""
    event, world = chance.choice(BETWEEN), World(lake, names=("numbers", "predictions", "chaos"))
    if event != "nothing":
        EVENTS[event](world, chance)
    if not (world.checkpoint / "lakemill.json").exists():  # the rest of a checkpoint is refused, as it says nothing
        shutil.rmtree(world.checkpoint, ignore_errors=True)
    return event


def live(lake: Path, seconds: float) -> None:
    """Let the job live for some seconds after its session is up."""
    (lake / "session").unlink(missing_ok=True)
    process, end = start_life(lake), time.monotonic() + LIFE_SECONDS
    while not (lake / "session").exists():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the job did not start:\n{(lake / 'log').read_text()[-3000:]}")
        time.sleep(0.05)
    time.sleep(seconds)
    if process.poll() is not None:
        raise SystemExit(f"the job ended by itself:\n{(lake / 'log').read_text()[-3000:]}")
    kill(process)


if __name__ == "__main__":
    raise SystemExit(main())
