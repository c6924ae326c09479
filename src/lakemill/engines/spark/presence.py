"""Whether there is a Spark to use: a session, something that starts one for us, or at least the package."""

from __future__ import annotations

import importlib.util
import os
import sys

STARTED_BY = {
    "PYSPARK_GATEWAY_PORT": "spark-submit started this",
    "SPARK_REMOTE": "SPARK_REMOTE names a Spark Connect server",
    "DATABRICKS_RUNTIME_VERSION": "this is Databricks",
}
"""Variables of the environment that say where a session comes from."""


def spark_here() -> str | None:
    """Return why Spark is what a job here should run on; None if nothing says so."""
    if _is_active():
        return "a session is active"
    return next((reason for variable, reason in STARTED_BY.items() if variable in os.environ), None)


def is_installed() -> bool:
    """Return whether the package is there."""
    return importlib.util.find_spec("pyspark") is not None


def _is_active() -> bool:
    if "pyspark.sql.session" not in sys.modules:  # then nobody can have made one
        return False
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        SparkSession.active()
    except PySparkRuntimeError:
        return False
    return True
