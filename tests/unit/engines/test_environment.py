"""What is missing on a machine is said in one message, before Spark is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakemill.engines.spark import environment
from lakemill.engines.spark.session import heap_bytes
from lakemill_udfs.errors import SetupError
from tests.processes import session_error

PLATFORMS = ("Debian", "Fedora", "macOS", "Windows")


def fake_java(folder: Path, listing: str) -> Path:
    """Write a program that answers like a Java that cannot be installed here."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{listing}\n")
    program.chmod(0o755)
    return folder


def test_no_java_says_what_to_install_on_every_system(tmp_path: Path) -> None:
    error = session_error(PATH=str(tmp_path))
    assert error.startswith("lakemill_udfs.errors.SetupError: [JAVA_MISSING]")
    assert all(platform in error for platform in PLATFORMS)


def test_java_home_without_java(tmp_path: Path) -> None:
    assert f"[JAVA_MISSING] Spark needs Java 17 or 21: JAVA_HOME ({tmp_path})" in session_error(JAVA_HOME=str(tmp_path))


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ("echo java.base@11.0.2", "is Java 11"),
        ("echo java.base@25.0.1; echo jdk.incubator.vector@25.0.1", "is Java 25"),
        ("echo 'Unrecognized option: --list-modules' >&2; exit 1", "is older"),
        ("echo java.base@17.0.15", "without the module jdk.incubator.vector"),
    ],
)
def test_the_wrong_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str, found: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", listing)))
    with pytest.raises(SetupError, match=found) as caught:
        environment.check_java()
    assert caught.value.code == "JAVA_VERSION"
    assert all(platform in str(caught.value.hint) for platform in PLATFORMS)


def test_this_machines_java_will_do() -> None:
    environment.check_java()


def test_the_installed_spark_and_delta_go_together() -> None:
    environment.check_versions(*environment.installed_versions())


@pytest.mark.parametrize(("spark", "delta"), [("4.2.0", "4.4.0"), ("4.2.0", "4.4.1"), ("4.2.3", "4.4.0")])
def test_the_jars_are_those_that_are_published_whatever_the_packages_are(spark: str, delta: str) -> None:
    assert environment.check_versions(spark, delta) == "4.4.0"


@pytest.mark.parametrize(("spark", "delta"), [("4.2.0", "4.5.0"), ("4.1.0", "4.4.0"), ("3.5.6", "3.3.2")])
def test_versions_that_do_not_go_together_are_both_named(spark: str, delta: str) -> None:
    with pytest.raises(
        SetupError, match=rf"pyspark {spark} and delta-spark {delta}.*4\.2 with delta-spark 4\.4"
    ) as caught:
        environment.check_versions(spark, delta)
    assert caught.value.code == "SPARK_DELTA_VERSIONS"


def test_another_python_for_the_workers(tmp_path: Path) -> None:
    other = tmp_path / "python3.9"
    other.write_text("#!/bin/sh\necho 3.9\n")
    other.chmod(0o755)
    error = session_error(PYSPARK_PYTHON=str(other))
    assert f"[PYTHON_MISMATCH] workers would run {other}, which is Python 3.9" in error


def test_a_python_for_the_workers_that_is_not_there() -> None:
    with pytest.raises(SetupError, match="missing or broken"):
        environment.choose_worker_python("/nowhere/python3")


def test_workers_run_the_interpreter_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    environment.choose_worker_python()
    assert os.environ["PYSPARK_PYTHON"] == sys.executable


def test_without_the_spark_extra() -> None:
    """An interpreter that has the base packages only says which extra to install."""
    script = "import sys; sys.modules['pyspark'] = None\nfrom lakemill import get_session; get_session()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "[EXTRA_MISSING]" in done.stderr
    assert "pip install 'lakemill[spark]'" in done.stderr


@pytest.mark.parametrize(("text", "size"), [("1g", 2**30), ("512m", 2**29), ("2048", 2**31), ("4GB", 2**32)])
def test_jvm_memory_settings(text: str, size: int) -> None:
    assert heap_bytes(text) == size
