"""A class-data archive, with which a local session and its first job are there sooner.

Java reads, checks and links the classes of Spark and Delta one by one, which is much of what a cold start costs; from
an archive it maps them (JEP 350). ``python -m lakemill.engines.spark.class_archive`` makes it, once for each Java and
Spark; sessions that are made here use it if it is there. An archive that does not fit is ignored by Java.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
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
