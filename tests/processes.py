"""Sessions in a process of their own, whose environment a test chooses."""

from __future__ import annotations

import os
import subprocess
import sys


def session_error(**variables: str) -> str:
    """Return the last line that a process prints when it asks for a session."""
    script = "from lakemill.engines.spark.session import get_session; get_session()"
    env = {key: value for key, value in os.environ.items() if key not in {"JAVA_HOME", "PYSPARK_PYTHON"}} | variables
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]
