"""One Spark session for the whole suite, started by the first test that asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.spark.cluster import Cluster

ROOT = Path(__file__).parents[1]

# The machine's time zone must not decide a test, neither here nor in Spark's Python workers.
os.environ["TZ"] = "UTC"
time.tzset()
# Every test here is a short job; also for the command lines that tests start.
os.environ["LAKEMILL_FAST_START"] = "1"
# `make test` makes the archive of Java's classes before it starts; no test leaves a process behind that does.
os.environ["LAKEMILL_CLASS_ARCHIVE"] = "0"

# The first example of a property pays for imports, and two cores are shared: a deadline only makes failures by chance.
settings.register_profile("lakemill", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lakemill")


SLOWEST_FIRST = ("chaos", "jobs", "spark", "both", "local", "browser", "models", "security", "unit")
"""The rooms of the tests in the order in which ``make test``'s processes take them: what is short fills the gaps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest rooms first."""
    items.sort(key=lambda item: SLOWEST_FIRST.index(_room(item)) if _room(item) in SLOWEST_FIRST else 0)


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keep each file's tests in one of ``make test``'s processes, and those that share the demo's lake together.

    ``--dist loadgroup`` would do it by marks, but with pytest 9.2 its groups are lost, without a word.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "jobs" if file.startswith("tests/jobs/") else file

    return Files(config, log)


@pytest.fixture(scope="module", autouse=True)
def _no_experiment_stays() -> Iterator[None]:
    """Let no module's MLflow experiment be the next one's: in another store there is none of that number."""
    yield
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is not None:
        vars(fluent)["_active_experiment_id"] = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="session")
def _spark(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[SparkSession]:
    from lakemill.engines.spark.session import get_session
    from tests.spark_commits import BY_SPARK

    scratch = tmp_path_factory.mktemp("spark")
    session = get_session(
        "lakemill-tests",
        {
            # Two cores and two shuffle tasks: parallel enough for order bugs to show, and the same on every machine.
            "spark.master": "local[2]",
            "spark.sql.shuffle.partitions": "2",
            # Leaves room for the Python workers and the cluster test beside it.
            "spark.driver.memory": "2g",
            # Rows are few here: compiling each query costs a quarter of a run. The sessions that command lines and
            # the cluster start compile as a user's does.
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            # Nothing is left in the checkout, and nothing of an earlier run is found.
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            "spark.local.dir": str(scratch / "local"),
        }
        | (BY_SPARK if pytestconfig.option.markexpr != "matrix" else {}),
    )
    yield session
    session.stop()


@pytest.fixture
def spark(_spark: SparkSession) -> Iterator[SparkSession]:
    """Yield the shared session; afterwards its cache and temporary views are gone."""
    yield _spark
    _spark.catalog.clearCache()
    for table in _spark.sql("SHOW TABLES").collect():  # Spark's catalog.listTables needs compiled code for its rows
        if table.isTemporary:
            _spark.catalog.dropTempView(table.tableName)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and lakemill.zip, as ``make dist`` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([ROOT / "scripts/build_dist.sh", sys.executable, folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, dist: Path) -> Iterator[Cluster]:
    """Yield a running standalone cluster whose executors have an environment of their own."""
    from tests.spark.cluster import executor_python, running

    python = executor_python(pytestconfig.cache.mkdir("executor"))
    with running(tmp_path_factory.mktemp("cluster"), python, dist / "lakemill.zip") as started:
        yield started
