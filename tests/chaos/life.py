"""One life of a job over the lake of ``tests/events.py``: rows come and are scored, in all modes, until it is killed.

python life.py LAKE ENGINE CHANGES SEED
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from lakemill import get_session
from tests.chaos.job import SETTINGS
from tests.events import World

WHAT_HAPPENS = (*["append"] * 4, *["score"] * 4, "full", "missing", "where", "retry")
ROWS_OF_A_LIFE = 100_000


def main(lake: Path, engine: str, changes: str, seed: int) -> None:
    """Live."""
    chance, session = random.Random(seed), None  # noqa: S311 -- no secret
    if engine == "spark":
        session = get_session("chaos", SETTINGS)
    world = World(lake, engines=(engine,), changes=changes, session=session)
    world.happened |= set(json.loads((lake / "happened").read_text()))
    world.next_x = int((lake / "life").read_text()) * ROWS_OF_A_LIFE
    (lake / "session").touch()
    world.score(chance)
    while True:
        event = chance.choice(WHAT_HAPPENS)
        with (lake / "done").open("a") as done:
            done.write(f"{event}\n")
        getattr(world, event)(chance)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
