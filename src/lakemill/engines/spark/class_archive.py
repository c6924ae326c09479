"""A class-data archive, with which a local session and its first job are there sooner.

Java reads, checks and links the classes of Spark and Delta one by one, which is much of what a cold start costs; from
an archive it maps them (JEP 350). The first command that starts a local session leaves a process behind that makes it,
at the lowest priority, once for each Java and Spark; later sessions use it. An archive that does not fit is ignored by
Java. ``LAKEMILL_CLASS_ARCHIVE=0`` makes none; ``python -m lakemill.engines.spark.class_archive`` makes it now.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakemill.engines.spark.delta_jars import cache_folder
from lakemill_udfs.errors import SetupError
from lakemill_udfs.own_files import own_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        atexit.register(start_maker, archive, [sys.executable, "-m", __name__])


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


def make_archive() -> Path:
    """Make the archive from the classes that a small job loads, unless it is there (200 MB).

    Raises:
        SetupError: ``CLASS_ARCHIVE`` if Java wrote none.
    """
    from lakemill.engines.spark.environment import check_java, java_options

    archive = class_archive(check_java())
    if archive.exists():
        return archive
    own_folder(archive.parent)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        written = Path(scratch, "classes.jsa")
        record = [f'"-XX:ArchiveClassesAtExit={written}"', "-Xlog:cds*=off"]
        _run_job(Path(scratch), " ".join([java_options(), *record]))
        if not written.exists():
            raise SetupError("CLASS_ARCHIVE", f"Java wrote no archive of its classes to {archive.parent}.")
        written.replace(archive)
    archive.with_suffix(".making").unlink(missing_ok=True)
    return archive


def _run_job(folder: Path, options: str) -> None:
    """Predict in a Java of its own and wait for its end, at which it writes the archive."""
    from pyspark import SparkContext

    from lakemill import PredictConfig, get_session, predict_table

    spark = get_session("class-archive", {"spark.driver.extraJavaOptions": options})
    java: Any = SparkContext._gateway  # PySpark tells nobody else of its process
    spark.range(10).write.format("delta").save(f"{folder}/numbers")
    step = {"function": f"{__spec__.name}:negative", "inputs": {"x": "id"}, "outputs": {"y": {"dtype": "int64"}}}
    for mode in ("incremental", "missing"):
        config = PredictConfig.load(
            None,
            (),
            source={"table": f"{folder}/numbers", "key": ["id"]},
            pipeline={"steps": [{"python": step}]},
            output={"table": f"{folder}/predictions"},
            mode=mode,
        )
        predict_table(config, spark)
    spark.stop()
    java.shutdown()
    java.proc.stdin.close()
    java.proc.wait(DUMP_SECONDS)


def negative(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what the small job computes."""
    return {"y": -inputs["x"]}


if __name__ == "__main__":
    os.environ.setdefault("LAKEMILL_FAST_START", "1")
    try:
        print(make_archive())
    except SetupError as problem:
        sys.exit(str(problem))
