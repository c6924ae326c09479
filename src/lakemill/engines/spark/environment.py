"""What this machine must have before Spark can start: Java, PySpark and Delta that go together, one Python version."""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lakemill_udfs.errors import SetupError

JAVA_VERSIONS = (17, 21)
VECTOR_MODULE = "jdk.incubator.vector"
DELTA_JARS = {"4.2": "4.4.0"}
"""PySpark's minor versions, and the newest version of Delta whose jars are published for them. A newer package of
delta-spark holds Python alone: it goes with the jars of its own minor version."""

JAVA_HINT = (
    "Debian, Ubuntu: apt-get install openjdk-17-jre-headless; Fedora: dnf install java-21-openjdk-headless; "
    "macOS: brew install openjdk@17; Windows: winget install EclipseAdoptium.Temurin.17.JRE. "
    "If it is installed already, set JAVA_HOME to its folder."
)
PYTHON_HINT = "unset PYSPARK_PYTHON, or point it to an interpreter of the driver's version."


def check_java() -> str:
    """Check that the Java that Spark will start is one that Spark runs on.

    Returns:
        The program and its version, for example ``/usr/lib/jvm/java-17/bin/java 17.0.13``.

    Raises:
        SetupError: ``JAVA_MISSING`` if there is none, ``JAVA_VERSION`` if it is neither 17 nor 21 or lacks a module.
    """
    home = os.environ.get("JAVA_HOME")
    program = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if program is None:
        where = f"JAVA_HOME ({home}) has no bin/java" if home else "there is no java on the PATH"
        raise SetupError("JAVA_MISSING", f"Spark needs Java {_either(JAVA_VERSIONS)}: {where}.", hint=JAVA_HINT)
    # The module list carries the version too: one start of Java instead of two.
    listing = subprocess.run([program, "--list-modules"], capture_output=True, text=True, check=False)
    base = re.search(r"^java\.base@((\d+)\S*)", listing.stdout, re.MULTILINE)
    found = int(base[2]) if base else None
    if base and found in JAVA_VERSIONS and VECTOR_MODULE in listing.stdout:
        return f"{Path(program).resolve()} {base[1]}"
    if found not in JAVA_VERSIONS:
        raise SetupError(
            "JAVA_VERSION",
            f"Spark needs Java {_either(JAVA_VERSIONS)}; "
            f"{program} is {'Java ' + str(found) if found else 'older or not Java'}.",
            hint=JAVA_HINT,
        )
    raise SetupError(
        "JAVA_VERSION",
        f"{program} is a trimmed Java {found} without the module {VECTOR_MODULE}, on which Spark does not start.",
        hint=JAVA_HINT,
    )


def _either(values: tuple[int, ...]) -> str:
    return " or ".join(map(str, values))


def installed_versions() -> tuple[str, str]:
    """Return the versions of the installed pyspark and delta-spark.

    Raises:
        SetupError: ``EXTRA_MISSING`` if one of them is not installed.
    """
    try:
        return version("pyspark"), version("delta-spark")
    except PackageNotFoundError as error:
        raise SetupError(
            "EXTRA_MISSING", f"the package '{error.name}' is not installed here.", hint="pip install 'lakemill[spark]'."
        ) from error


def check_versions(spark: str, delta: str) -> str:
    """Check that Delta's jars exist for this Spark.

    Args:
        spark: Version of pyspark, for example ``4.2.0``.
        delta: Version of delta-spark, for example ``4.4.1``.

    Returns:
        The version of the jars to take, which need not be the package's: ``4.4.0``.

    Raises:
        SetupError: ``SPARK_DELTA_VERSIONS`` if they do not go together.
    """
    jars = DELTA_JARS.get(_minor(spark))
    if jars is None or _minor(jars) != _minor(delta):
        pairs = (f"pyspark {minor} with delta-spark {_minor(version)}" for minor, version in DELTA_JARS.items())
        raise SetupError(
            "SPARK_DELTA_VERSIONS",
            f"pyspark {spark} and delta-spark {delta} do not go together; expected {'; '.join(pairs)}.",
            hint="pip install 'lakemill[spark]' installs a pair.",
        )
    return jars


def _minor(number: str) -> str:
    return ".".join(number.split(".")[:2])


def choose_worker_python(chosen: str | None = None) -> None:
    """Make local Python workers run this interpreter, or check the one that the user chose.

    Without this PySpark starts the first ``python3`` on the PATH, which need not be the virtual environment's.

    Args:
        chosen: The value of ``spark.pyspark.python``; None leaves it to ``PYSPARK_PYTHON``, then to this interpreter.

    Raises:
        SetupError: ``PYTHON_MISMATCH`` if the chosen one is missing or has another minor version than this one.
    """
    python = chosen or os.environ.get("PYSPARK_PYTHON") or sys.executable
    if python != sys.executable:
        expected, found = f"{sys.version_info.major}.{sys.version_info.minor}", _minor_version(python)
        if found != expected:
            raise SetupError(
                "PYTHON_MISMATCH",
                f"workers would run {python}, which is Python {found}; the driver is Python {expected}.",
                hint=PYTHON_HINT,
            )
    os.environ["PYSPARK_PYTHON"] = python


def _minor_version(python: str) -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "missing or broken"
    return done.stdout.strip()


def java_options() -> str:
    """Return the options of a local JVM: where its log settings are, and how much it compiles."""
    here = importlib.resources.files("lakemill.engines.spark")
    options = [f"-Dlog4j2.configurationFile={here / 'log4j2.properties'}"]
    if os.environ.get("LAKEMILL_FAST_START") == "1":
        # With one compiler the JVM reserves 48 MiB for its code: a long process would fill it and compile without end.
        options += ["-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m"]
    return " ".join(options)
