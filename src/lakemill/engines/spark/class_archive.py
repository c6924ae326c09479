"""A class-data archive, with which a local session and its first job are there sooner.

Java reads, checks and links the classes of Spark and Delta one by one, which is much of what a cold start costs; from
an archive it maps them (JEP 350). The first command that starts a local session leaves a process behind that makes it,
at the lowest priority, once for each Java and Spark; later sessions use it. An archive that does not fit is ignored by
Java. ``LAKEMILL_CLASS_ARCHIVE=0`` makes none; ``python -m lakemill.predict.class_archive`` makes it now.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakemill.engines.spark.delta_jars import cache_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAKER = "lakemill.predict.class_archive"
"""The module that makes the archive when it is run: its classes are those that a predict job loads."""

DUMP_SECONDS = 120
SWITCH = "LAKEMILL_CLASS_ARCHIVE"
STALE_SECONDS = 900
"""A process that was to make an archive and has not by then is not waited for."""


def class_archive(java: str) -> Path:
    """Return where the archive of this Java and these packages is, or would be.

    Args:
        java: The program and its version, as ``environment.check_java`` returns them.
    """
    spark = find_spec("pyspark")
    parts = (java, spark and spark.origin, version("pyspark"), version("delta-spark"))
    return cache_folder() / f"classes-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.jsa"


def archive_options(archive: Path) -> list[str]:
    """Return the options with which Java uses an archive; none if it is not there."""
    return [f'"-XX:SharedArchiveFile={archive}"', "-Xlog:cds*=off"] if archive.exists() else []


@functools.cache
def make_after_this(archive: Path) -> None:
    """Have the archive made by a process of its own once this one ends, unless it is there or somebody makes it."""
    if os.environ.get(SWITCH) != "0" and not archive.exists():
        atexit.register(start_maker, archive, [sys.executable, "-m", MAKER])


def start_maker(archive: Path, command: Sequence[str]) -> bool:
    """Start what makes an archive, apart from this process and its terminal; return whether it was started.

    Args:
        archive: What is to be made.
        command: Makes it.
    """
    mark = archive.with_suffix(".making")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        if mark.exists() and time.time() - mark.stat().st_mtime > STALE_SECONDS:
            mark.unlink(missing_ok=True)
        mark.touch(exist_ok=False)
        # What it inherits it would keep open: a shell waits for the end of a pipe, not of a command.
        subprocess.Popen(
            ["nice", "-n", "19", *command],
            env=os.environ | {SWITCH: "0"},
            cwd="/",
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # somebody makes it already, there is no room or no `nice`: Spark starts without it as well
        return False
    return True


def end_java(spark: SparkSession) -> None:
    """Stop a session and wait for the end of its Java, at which that writes the archive."""
    from pyspark import SparkContext

    java: Any = SparkContext._gateway  # PySpark tells nobody else of its process
    spark.stop()
    java.shutdown()
    java.proc.stdin.close()
    java.proc.wait(DUMP_SECONDS)
