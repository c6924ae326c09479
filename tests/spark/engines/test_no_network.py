"""Delta's jars cannot be fetched: one message instead of a page of Ivy's."""

from __future__ import annotations

from pathlib import Path

from tests.processes import session_error


def test_no_repository_to_fetch_from(tmp_path: Path) -> None:
    """An empty cache and a network that goes nowhere: one message instead of a page of Ivy's."""
    nowhere = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    error = session_error(XDG_CACHE_HOME=str(tmp_path), JAVA_TOOL_OPTIONS=nowhere)
    assert error.startswith("lakemill_udfs.errors.SetupError: [DELTA_JARS] Spark could not fetch io.delta:delta-spark")
    assert not list((tmp_path / "lakemill").iterdir())
