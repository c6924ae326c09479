"""Make the class-data archive of ``engines.spark.class_archive``: ``python -m lakemill.predict.class_archive``.

Java archives the classes that a small predict job loads, so that the first job of a session finds its own there too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lakemill.engines.spark.class_archive import MAKER, class_archive, end_java
from lakemill_udfs.errors import SetupError
from lakemill_udfs.own_files import own_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    from lakemill.config.predict import PredictConfig  # here: workers import this module for `negative`
    from lakemill.engines.spark.session import get_session
    from lakemill.predict.job import predict_table

    spark = get_session("class-archive", {"spark.driver.extraJavaOptions": options})
    spark.range(10).write.format("delta").save(f"{folder}/numbers")
    step = {"function": f"{MAKER}:negative", "inputs": {"x": "id"}, "outputs": {"y": {"dtype": "int64"}}}
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
    end_java(spark)


def negative(inputs: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Return what the small job computes."""
    return {"y": -inputs["x"]}


if __name__ == "__main__":
    os.environ.setdefault("LAKEMILL_FAST_START", "1")
    try:
        print(make_archive())
    except SetupError as problem:
        sys.exit(str(problem))
