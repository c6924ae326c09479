"""The archive of Java's classes is made by a process that nobody waits for, once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lakemill.engines.spark.class_archive import STALE_SECONDS, start_maker

FIRST_COMMAND = """
import sys
from pathlib import Path
from lakemill.engines.spark.class_archive import start_maker
archive = Path(sys.argv[1])
maker = f"import time; time.sleep(1.5); open({str(archive)!r}, 'w').close()"
print(start_maker(archive, [sys.executable, "-c", maker]), start_maker(archive, ["false"]))
"""


def test_no_shell_waits_for_the_maker_and_there_is_one(tmp_path: Path) -> None:
    archive = tmp_path / "cache/classes.jsa"
    command = [sys.executable, "-c", FIRST_COMMAND, str(archive)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)  # ends when the pipes are closed
    assert not archive.exists()
    assert first.stdout.split() == ["True", "False"]
    end = time.monotonic() + 60
    while not archive.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert archive.exists()


def test_a_maker_that_died_is_not_waited_for(tmp_path: Path) -> None:
    archive = tmp_path / "classes.jsa"
    mark = archive.with_suffix(".making")
    mark.touch()
    os.utime(mark, (time.time() - STALE_SECONDS - 1,) * 2)
    assert start_maker(archive, ["true"])
    assert not start_maker(archive, ["true"])
