"""One life of a job: recover, take in more rows, score them, and be killed on the way.

python job.py LAKE ENGINE FAULT    dies at the named step; ``none`` only recovers
python job.py LAKE ENGINE          goes on until somebody kills it
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from deltalake import DeltaTable

from lakemill import get_session, predict_table
from lakemill.predict import commits, incremental
from tests.chaos.lake import add_rows, config
from tests.spark_commits import BY_SPARK

SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    # A life is a run or two: compiling its queries takes longer than they do.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def main(lake: Path, engine: str, fault: str | None) -> None:
    """Live."""
    spark = get_session("chaos", SETTINGS | (BY_SPARK if _lives(lake) % 2 else {})) if engine == "spark" else None
    (lake / "session").touch()
    job = config(lake, engine)
    predict_table(job, spark, progress=print)
    with (lake / "recovered").open("a") as stream:
        stream.write(f"{DeltaTable(lake / 'predictions').version()}\n")
    if fault == "none":
        return
    if fault is not None:
        FAULTS[fault](lake)
    while True:
        add_rows(lake)
        predict_table(job, spark, progress=print)
        if fault is not None:
            raise SystemExit(f"survived {fault}")


def _lives(lake: Path) -> int:
    """Return how many lives there were."""
    recovered = lake / "recovered"
    return len(recovered.read_text().splitlines()) if recovered.exists() else 0


def die(*_: Any) -> None:
    """Take the JVM along, without a word to anyone."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
    time.sleep(60)


def at(module: ModuleType, name: str, *, after: bool) -> Callable[[Path], None]:
    """Return what makes the process die before or after a function's next call."""

    def arm(_: Path) -> None:
        function = getattr(module, name)

        def last(*arguments: Any, **named: Any) -> None:
            if after:
                function(*arguments, **named)
            die()

        setattr(module, name, last)

    return arm


def while_scoring(lake: Path) -> None:
    """Let the scoring function kill the driver."""
    (lake / "kill_while_scoring").write_text(str(os.getpgrp()))


def with_files_but_no_commit(lake: Path) -> None:
    """Die as soon as the predictions have a new data file that is whole; the commit comes later."""
    table = lake / "predictions"
    known = {file.name for file in table.glob("*.parquet")}

    def watch() -> None:
        while True:
            for file in os.scandir(table):
                if file.name.endswith(".parquet") and file.name not in known and is_whole(Path(file.path)):
                    die()
            time.sleep(0.0005)

    threading.Thread(target=watch, daemon=True).start()


def is_whole(file: Path) -> bool:
    """Return whether a Parquet file has its end."""
    return file.read_bytes()[-4:] == b"PAR1"


FAULTS: dict[str, Callable[[Path], None]] = {
    "before inference": at(incremental, "commit", after=False),
    "while scoring": while_scoring,
    "after persisting": at(commits, "judge", after=True),
    "with files but no commit": with_files_but_no_commit,
    "after the commit, before the checkpoint": at(incremental, "commit", after=True),
    "before derived tables": at(incremental, "copy_batch", after=False),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
