"""A real standalone cluster for tests: a master and two workers as separate processes of the pip-installed Spark.

The executors' Python is an environment of its own, without Lakemill and without PySpark: what they need arrives by
``--py-files dist/lakemill.zip``, as on a cluster that someone else runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark

from lakemill.engines.spark.class_archive import archive_options, class_archive
from lakemill.engines.spark.delta_jars import delta_jars
from lakemill.engines.spark.environment import check_java, installed_versions

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
START_SECONDS, SUBMIT_SECONDS = 60, 300
WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Args:
        url: ``spark://host:port`` of the master.
        python: The executors' interpreter.
        py_files: The zip that is shipped to executors.
    """

    url: str
    python: Path
    py_files: Path

    def submit(
        self,
        script: str | Path,
        *arguments: str,
        settings: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script on the driver with spark-submit, with the repository's root as working folder.

        Args:
            script: Path of the script, from the repository's root.
            arguments: Its arguments.
            settings: Spark settings over those of ``conf/spark.conf``.
        """
        jars = ",".join(map(str, delta_jars(*installed_versions())))
        options = {
            # Fetched before; the tests need no network, and no second copy.
            "spark.jars.packages": "",
            "spark.jars.excludes": "",
            "spark.jars": jars,
            "spark.pyspark.python": str(self.python),
            "spark.pyspark.driver.python": sys.executable,
            "spark.driver.memory": "1g",
            "spark.executor.memory": "1g",
            "spark.cores.max": str(WORKERS),
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "2",
            "spark.databricks.delta.snapshotPartitions": "2",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": java_options(),
            "spark.executor.extraJavaOptions": java_options(),
        } | (settings or {})
        command = [
            SPARK_HOME / "bin/spark-submit",
            "--master",
            self.url,
            "--properties-file",
            ROOT / "conf/spark.conf",
            "--py-files",
            self.py_files,
        ]
        command += [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
        return subprocess.run(
            [*command, script, *arguments],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=SUBMIT_SECONDS,
        )


def java_options() -> str:
    """Return what makes a Java of a few seconds cheap: one compiler, and the archive of classes if it is there."""
    return " ".join(["-XX:TieredStopAtLevel=1", *archive_options(class_archive(check_java()))])


def environment() -> dict[str, str]:
    """Return this process's environment without what the suite's own session put there: it would hide the settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYSPARK_")}
    return kept | {"SPARK_LOCAL_IP": "127.0.0.1"}


def executor_python(folder: Path) -> Path:
    """Return the interpreter of an environment with the executors' packages, made in ``folder`` the first time."""
    pins = ROOT / "requirements/executor.txt"
    done, python = folder / "executor.txt", folder / "bin/python"
    if not done.exists() or done.read_bytes() != pins.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", pins],
            check=True,
        )
        done.write_bytes(pins.read_bytes())
    return python


@contextlib.contextmanager
def running(work: Path, python: Path, py_files: Path) -> Iterator[Cluster]:
    """Start a master and the workers, yield the cluster, and end these processes.

    Args:
        work: Folder for logs and the executors' working folders.
        python: The executors' interpreter.
        py_files: The zip that is shipped to executors.
    """
    with contextlib.ExitStack() as processes:
        log = work / "master.log"
        master = processes.enter_context(_daemon(log, "master.Master", "--port", "0", "--webui-port", "0"))
        url = _wait_for(log, r"Starting Spark master at (spark://\S+)", master)
        for index in range(WORKERS):
            log = work / f"worker{index}.log"
            worker = processes.enter_context(
                _daemon(
                    log,
                    "worker.Worker",
                    "--cores",
                    "1",
                    "--memory",
                    "1g",
                    "--webui-port",
                    "0",
                    "--work-dir",
                    str(log.with_suffix("")),
                    url,
                )
            )
            _wait_for(log, r"Successfully registered with (master)", worker)
        yield Cluster(url, python, py_files)


@contextlib.contextmanager
def _daemon(log: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [SPARK_HOME / "bin/spark-class", f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *arguments]
    env = environment() | {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": java_options()}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"no '{pattern}' in {log}:\n{log.read_text()[-2000:]}")
