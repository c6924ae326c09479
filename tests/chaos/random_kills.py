"""``make chaos``: a job is killed at random times, again and again, and things happen to its tables between its lives.

Each life runs on an engine that chance takes: Spark, or this machine's processes. It appends rows and scores them, in
all modes. Between two lives a table is restored, deleted, cleaned up, overwritten, or the checkpoint spoiled. Every
tenth time the predictions are compared with the source. Half of the lives follow a source that is only added to, half
one that changes.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.lake import LIFE_SECONDS, kill, start_life
from tests.events import SOURCE_EVENTS, Verdict, World

LIFE = Path(__file__).with_name("life.py")
MOST_STEPS = {"spark": 4, "local": 8}
"""What a life does at most before the last step, in which it is killed."""

LAST_STEP_SECONDS = {"spark": 4.0, "local": 1.0}
"""About what a step takes; the kill comes somewhere in it."""

LIVES_A_JUDGEMENT = 10
TO_TABLES = (
    *["nothing"] * 2,
    "restore_output",
    "delete_rows",
    "lose_output",
    "lose_checkpoint",
    "keep_checkpoint",
    "older_checkpoint",
    "cut_checkpoint",
    "optimize",
    "vacuum",
    "undo",
    "other_job",
)
"""What happens between two lives to the tables and the checkpoint."""

BETWEEN = {"append": TO_TABLES, "upsert": (*TO_TABLES, *sorted(SOURCE_EVENTS))}


def main() -> int:
    """Kill, count, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spark", type=float, default=0.3, help="share of the lives on Spark")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311 -- the same times in every run
    total, happened = Counter[str](), Counter[str]()
    for changes, kills in (("append", arguments.kills - arguments.kills // 2), ("upsert", arguments.kills // 2)):
        with tempfile.TemporaryDirectory(prefix="lakemill-chaos-") as folder:
            world = World(Path(folder), changes=changes)
            (world.lake / "life").write_text("0")
            world.append(chance)
            for number in range(1, kills + 1):
                engine = "spark" if chance.random() < arguments.spark else "local"
                steps, seconds = chance.randint(0, MOST_STEPS[engine]), chance.uniform(0, LAST_STEP_SECONDS[engine])
                live(world, engine, steps, seconds, chance.randrange(10**6))
                event = chance.choice(BETWEEN[changes])
                if event != "nothing":
                    world.happen(event, chance)
                happened.update([f"kill on {engine}", event])
                said = f"{engine}, killed after {steps} steps and {seconds:.2f} s, then {event}"
                print(f"{changes} {number} of {kills}: {said}", flush=True)
                if number % LIVES_A_JUDGEMENT == 0 or number == kills:
                    total.update(judged(world, chance))
            happened.update(steps_of(world))
    print("; ".join(f"{event}: {count}" for event, count in sorted(happened.items())))
    print(", ".join(f"{name}: {total[name]}" for name in ("lost", "doubled", "foreign")))
    return int(any(total.values()))


def live(world: World, engine: str, steps: int, seconds: float, seed: int) -> None:
    """Let the job live on an engine for some steps and seconds, and kill it."""
    lake, before = world.lake, len(steps_of(world))
    (lake / "session").unlink(missing_ok=True)
    (lake / "happened").write_text(json.dumps(sorted(world.happened)))
    process = start_life(lake, world.changes, str(seed), engine=engine, script=LIFE)
    end = time.monotonic() + LIFE_SECONDS
    while not (lake / "session").exists() or len(steps_of(world)) < before + steps:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the job ended by itself:\n{(lake / 'log').read_text()[-3000:]}")
        time.sleep(0.02)
    time.sleep(seconds)
    if process.poll() is not None:
        raise SystemExit(f"the job ended by itself:\n{(lake / 'log').read_text()[-3000:]}")
    kill(process)
    world.read_source()


def steps_of(world: World) -> list[str]:
    """Return what all lives so far did, step by step."""
    done = world.lake / "done"
    return done.read_text().split() if done.exists() else []


def judged(world: World, chance: random.Random) -> dict[str, int]:
    """Return how many rows are lost and doubled after a run, and then after one that brings back what was deleted."""
    found = Counter[str]()
    world.score(chance)
    found.update(counts(world.verdict()))
    world.missing(chance)
    world.deleted.clear()
    found.update(counts(world.verdict()))
    if not any(found.values()):
        world.judge()
    print(f"{len(world.rows)} rows: {dict(found)}", flush=True)
    return found


def counts(verdict: Verdict) -> dict[str, int]:
    """Return how many rows of each kind there are."""
    return {name: len(getattr(verdict, name)) for name in ("lost", "doubled", "foreign")}


if __name__ == "__main__":
    raise SystemExit(main())
