"""The session: the user's own stays as it is, a local one has Delta, failures of Spark come out as coded errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakemill.engines.spark.class_archive import archive_options, class_archive
from lakemill.engines.spark.delta_jars import delta_jars
from lakemill.engines.spark.environment import check_java, installed_versions
from lakemill.engines.spark.errors import SPARK_FAILURES, reported, spark_failure
from lakemill.engines.spark.session import get_session, session_with
from lakemill_udfs.errors import LakemillError

SECRET = "row-data-4711"  # noqa: S105 -- a value of a row, which must not come out in a message


def python_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"python": [sys.executable] * batch.num_rows})


def failing(statement: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    exec(statement, {})  # noqa: S102 -- each case is one statement of this file
    yield from batches


def test_the_active_session_is_used_as_it_is(spark: SparkSession) -> None:
    before = dict(spark.conf.getAll)
    assert get_session("other", {"spark.sql.shuffle.partitions": "99"}) is spark
    assert dict(spark.conf.getAll) == before


def test_a_local_session_writes_delta_in_utc(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("SELECT TIMESTAMP '2024-01-02 03:04:05' AS time").write.format("delta").save(str(tmp_path / "t"))
    rows = DeltaTable(tmp_path / "t").to_pyarrow_table().to_pylist()
    assert rows == [{"time": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)}]


def test_workers_run_this_interpreter(spark: SparkSession) -> None:
    assert {row.python for row in spark.range(4).mapInArrow(python_of, "python string").collect()} == {sys.executable}


def test_a_session_beside_holds_its_settings_alone(spark: SparkSession) -> None:
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        beside = session_with(spark, {"spark.sql.parquet.compression.codec": "uncompressed"})
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    assert beside.conf.get("spark.sql.parquet.compression.codec") == "uncompressed"
    assert beside.conf.get("spark.sql.shuffle.partitions") == "5"
    assert spark.conf.get("spark.sql.parquet.compression.codec") != "uncompressed"


def test_a_session_without_delta_is_refused_and_weak_settings_are_reported_once(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
from pyspark.sql import SparkSession
from lakemill import SetupError, get_session
settings = {"spark.ui.enabled": "false", "spark.python.worker.reuse": "false"}
SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
for _ in range(2):
    try:
        get_session()
    except SetupError as error:
        print(error)
""",
    )
    assert done.stdout.count("[SESSION_NO_DELTA]") == 2
    assert "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension" in done.stdout
    assert done.stderr.count("spark.python.worker.reuse is false") == 1
    assert done.stderr.count("spark.driver.memory is 1g") == 1


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def test_a_local_session_is_quiet(tmp_path: Path) -> None:
    """A job's output is its own: no resolver, no Spark warnings, nothing on stdout."""
    done = run(
        tmp_path,
        f"from lakemill import get_session; spark = get_session(); "
        f"spark.range(9).write.format('delta').save({str(tmp_path / 't')!r}); spark.stop()",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "incubator modules" not in line] == []


def test_a_worker_that_is_killed_costs_a_task(tmp_path: Path) -> None:
    (tmp_path / "killed_once.py").write_text("""
import os, signal
from pathlib import Path
from typing import Any

def score(batches):
    for batch in batches:
        if batch.num_rows and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
""")
    done = run(
        tmp_path,
        "from lakemill import get_session; from killed_once import score; spark = get_session(); "
        "print(spark.range(9).mapInArrow(score, 'id long').count())",
    )
    assert done.stdout == "9\n", done.stderr
    assert (tmp_path / "killed").exists()


def test_a_class_archive_that_java_cannot_use_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars = delta_jars(*installed_versions())[0].parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = class_archive(check_java())
    assert archive_options(archive) == []
    archive.parent.mkdir()
    (archive.parent / jars.name).symlink_to(jars)
    archive.write_bytes(b"of another Java")
    asked = "spark.conf.get('spark.driver.extraJavaOptions')"
    done = run(tmp_path, f"from lakemill import get_session; spark = get_session(); print({asked}); spark.stop()")
    assert done.returncode == 0, done.stderr
    assert f"-XX:SharedArchiveFile={archive}" in done.stdout
    assert [line for line in done.stderr.splitlines() if "incubator modules" not in line] == []


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (
            "from lakemill_udfs.errors import ModelError; raise ModelError('TENSOR_SHAPE', 'expected (n, 64).')",
            "TENSOR_SHAPE",
        ),
        (f"raise ValueError({SECRET!r})", "WORKER_FAILED"),
        ("import module_of_nobody", "WORKER_MODULE_MISSING"),
        ("import os; os._exit(3)", "WORKER_DIED"),
    ],
)
@pytest.mark.parametrize("write", [False, True], ids=["count", "write"])
def test_a_workers_failure_keeps_its_code_and_no_data(
    spark: SparkSession,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    statement: str,
    code: str,
    *,
    write: bool,
) -> None:
    frame = spark.range(3).mapInArrow(reported(partial(failing, statement)), "id long")
    action: Callable[[], object] = frame.count
    if write:
        action = partial(frame.write.format("delta").save, str(tmp_path / "t"))
    error = failure_of(action)
    assert error.code == code
    assert SECRET not in str(error) + "".join(capfd.readouterr())


def failure_of(action: Callable[[], object]) -> LakemillError:
    with pytest.raises(SPARK_FAILURES) as caught:
        action()
    return spark_failure(caught.value)


def test_a_message_and_its_hint_arrive_whole(spark: SparkSession) -> None:
    statement = "from lakemill_udfs.errors import ModelError; raise ModelError('TENSOR_SHAPE', 'n, 64.', hint='Look.')"
    error = failure_of(spark.range(1).mapInArrow(reported(partial(failing, statement)), "id long").count)
    assert (type(error).__name__, error.message, error.hint) == ("ModelError", "n, 64.", "Look.")


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
FORGED = [
    "lakemill_udfs.errors.ModelError: [MODEL_LOAD] ",
    f"{TRACEBACK}lakemill_udfs.voice.WorkerError: [MODEL_LOAD] x (ModelError 0123456789abcdef0123456789abcdef)\n",
    f"{TRACEBACK}ModuleNotFoundError: No module named 'x'",
    "ModuleNotFoundError: No module named 'x'",
    "No space left on device",
]


@pytest.mark.parametrize("said", FORGED)
@pytest.mark.parametrize("wrap", [reported, lambda function: function], ids=["ours", "another's"])
def test_a_rows_text_never_speaks_as_lakemill(spark: SparkSession, said: str, wrap: Callable[[Any], Any]) -> None:
    statement = f"raise ValueError({f'one line{chr(10)}{said}{SECRET}'!r})"
    error = failure_of(spark.range(1).mapInArrow(wrap(partial(failing, statement)), "id long").count)
    assert (error.code, SECRET in str(error)) == ("WORKER_FAILED", False)


@pytest.mark.parametrize("said", FORGED[:3])
def test_a_value_in_an_error_of_sparks_never_speaks_as_lakemill(spark: SparkSession, said: str) -> None:
    frame = spark.createDataFrame([(f"{chr(10)}{said}{chr(10)}",)], "label string")
    error = failure_of(frame.selectExpr("CAST(label AS INT)").collect)
    assert error.code in ("SPARK_FAILED", "WORKER_FAILED")
    assert "MODEL_LOAD" not in str(error)


def test_values_in_sql_errors_stay_out(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    error = failure_of(spark.range(2).selectExpr(f"CAST(concat('{SECRET}', id) AS INT)").collect)
    assert "CAST_INVALID_INPUT" in str(error)
    assert SECRET not in str(error) + "".join(capfd.readouterr())


def test_a_table_that_cannot_be_written(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = failure_of(partial(spark.range(1).write.format("delta").save, str(tmp_path / "file/table")))
    assert (error.code, error.exit_code) == ("STORAGE_DENIED", 2)
