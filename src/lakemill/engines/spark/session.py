"""The Spark session: the user's own as it is, or a local one with Delta.

A session that exists is never changed. What it must have is checked (``SESSION_NO_DELTA``); what it should have is
reported once, as a warning of this module's logger.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakemill.engines.spark import environment
from lakemill.engines.spark.class_archive import archive_options, class_archive, make_after_this
from lakemill.engines.spark.delta_jars import delta_jars
from lakemill_udfs.errors import SetupError
from lakemill_udfs.own_files import own_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
NO_DELTA_HINT = (
    "Delta's jars and two settings are needed when the session is made: "
    + " and ".join(f"{key}={value}" for key, value in DELTA_SETTINGS.items())
    + "; with spark-submit, --properties-file conf/spark.conf has them all."
)
LEAST_HEAP_BYTES = 2 * 2**30


def get_session(app_name: str = "lakemill", settings: Mapping[str, str] | None = None) -> SparkSession:
    """Return the session that is there, or make one.

    In this order: the active or default session of this process, unchanged; a Spark Connect session if
    ``SPARK_REMOTE`` is set; under spark-submit a session with the settings submitted; else ``local[*]`` with Delta, UTC
    and quiet logs. ``LAKEMILL_FAST_START=1`` makes a local JVM compile less: it starts faster and runs slower, which
    pays for jobs of less than a minute; ``lakemill predict`` sets it for small sources.

    Args:
        app_name: Name of a session made here.
        settings: Spark settings of a session made here, over the defaults. A session that exists keeps its own.

    Raises:
        SetupError: ``EXTRA_MISSING``, ``SPARK_DELTA_VERSIONS``, ``JAVA_MISSING``, ``JAVA_VERSION``,
            ``PYTHON_MISMATCH`` or ``DELTA_JARS`` if a local session cannot be made; ``SESSION_NO_DELTA`` if the session
            does not know Delta.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise SetupError(
            "EXTRA_MISSING", "the package 'pyspark' is not installed here.", hint="pip install 'lakemill[spark]'."
        ) from error
    try:
        session = SparkSession.active()
    except PySparkRuntimeError:
        elsewhere = "SPARK_REMOTE" in os.environ or "PYSPARK_GATEWAY_PORT" in os.environ  # Connect, spark-submit
        options: dict[str, Any] = {**({} if elsewhere else _local_settings(settings or {})), **(settings or {})}
        session = SparkSession.builder.appName(app_name).config(map=options).getOrCreate()
    check_session(session)
    return session


def session_with(spark: SparkSession, settings: Mapping[str, str]) -> SparkSession:
    """Return a session of its own beside ``spark``, with the same settings and ``settings`` over them.

    Delta takes some options (Parquet layout, transaction ids) from the session only; set there, they would leak into
    everything else that runs in ``spark``. Temporary views are not carried over.

    Args:
        spark: The session to take catalog, cluster and settings from; it is not changed.
        settings: SQL settings of the new session.
    """
    if hasattr(spark, "cloneSession"):  # Spark Connect's way
        session: SparkSession = spark.cloneSession()
    else:
        session = spark.newSession()
        known = _settings(session)
        for key, value in _settings(spark).items():
            if known.get(key) != value:
                session.conf.set(key, value)
    for key, value in settings.items():
        session.conf.set(key, value)
    return session


@contextmanager
def settings_held(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Set a session's settings while the context lasts; then they are as they were before."""
    before = {name: spark.conf.get(name, None) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, former in before.items():
            if former is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, former)


def task_slots(spark: SparkSession) -> int:
    """Return how many tasks the cluster runs at once.

    ``sparkContext.defaultParallelism`` would know, but is not there over Connect: a cluster is asked how it splits a
    range.
    """
    local = re.fullmatch(r"local(?:\[(\*|\d+).*\])?", str(spark.conf.get("spark.master", "")))
    if local:
        return (os.cpu_count() or 1) if local[1] == "*" else int(local[1] or 1)
    from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

    return int(spark.range(4096).select(F.spark_partition_id()).tail(1)[0][0]) + 1


def task_threads(spark: SparkSession) -> int:
    """Return ``spark.task.cpus``, the processors that a task owns."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)


def _settings(spark: SparkSession) -> dict[str, str]:
    # A property in PySpark 4; its stub says method.
    settings: Any = spark.conf.getAll
    return dict(settings)


def check_session(spark: SparkSession) -> None:
    """Check that a session can do Delta, and warn once of settings that will hurt.

    Raises:
        SetupError: ``SESSION_NO_DELTA`` if Delta's extension or catalog is missing.
    """
    if spark.conf.get("spark.python.worker.reuse", "true") == "false":
        _warn_once("spark.python.worker.reuse is false: models are loaded again for every task. Set it to true.")
    heap = str(spark.conf.get("spark.driver.memory", "1g"))
    if str(spark.conf.get("spark.master", "")).startswith("local") and heap_bytes(heap) < LEAST_HEAP_BYTES:
        _warn_once(f"spark.driver.memory is {heap}: in local mode images pass through this heap. Set 2g or more.")
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:  # has Delta without the settings
        missing = [key for key, value in DELTA_SETTINGS.items() if value not in str(spark.conf.get(key, ""))]
        if missing:
            raise SetupError(
                "SESSION_NO_DELTA",
                f"the Spark session has no Delta: {' and '.join(missing)} not set.",
                hint=NO_DELTA_HINT,
            )


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def heap_bytes(text: str) -> int:
    """Return a JVM memory setting such as ``512m`` in bytes; without a unit it is MiB, as in Spark."""
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower())
    if not match:
        return 0
    return int(match[1]) << {"k": 10, "m": 20, "": 20, "g": 30, "t": 40}[match[2]]


def _local_settings(settings: Mapping[str, str]) -> dict[str, str]:
    spark, delta = environment.installed_versions()
    environment.check_versions(spark, delta)  # before Java is looked for
    java = environment.check_java()
    environment.choose_worker_python(settings.get("spark.pyspark.python"))
    archive = class_archive(java)
    make_after_this(archive)
    _quiet_query_log()
    return {
        **DELTA_SETTINGS,
        "spark.master": "local[*, 2]",  # a task is tried twice: a worker that is killed costs no run
        "spark.jars": ",".join(map(str, delta_jars(spark, delta))),
        "spark.driver.memory": "4g",
        "spark.driver.extraJavaOptions": " ".join([environment.java_options(), *archive_options(archive)]),
        "spark.driver.host": "127.0.0.1",  # the host's own name need not resolve, and nobody else has to reach us
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.authenticate": "true",  # by a random secret, which Spark makes itself in local mode
        "spark.local.dir": str(own_folder(Path(tempfile.gettempdir()) / f"lakemill-spark-{os.getuid()}")),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        # 200 shuffle tasks and 50 for a table's log are a cluster's numbers: here they cost seconds at every commit.
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.databricks.delta.snapshotPartitions": "2",
        # A worker that dies in native code (a model runtime) says where.
        "spark.python.worker.faulthandler.enabled": "true",
        "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",
    }


def _quiet_query_log() -> None:
    # PySpark prints every failed query to stderr as JSON, with the values of the failing expression.
    from pyspark.logger import PySparkLogger

    PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
