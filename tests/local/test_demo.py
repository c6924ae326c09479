"""The demo, as a person on a machine without Java runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from deltalake import DeltaTable


def demo(lake: Path) -> tuple[dict[str, Any], str]:
    """Run the demo with neither Java nor a place for it, and return its last line and all others."""
    without_java = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    environment = {**without_java, "PATH": str(Path(sys.executable).parent)}
    main = "from lakemill.cli.app import main; main()"
    command = [sys.executable, "-c", main, "demo", "--lake", str(lake), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(lines) + done.stderr


def test_the_demo_needs_no_java(tmp_path: Path) -> None:
    """Run again, it has nothing to do; another reader finds what it says."""
    lake = tmp_path / "lake"
    first, text = demo(lake)
    assert "engine: local, as nothing here needs Spark" in text
    assert (first["images"], first["rejected"], first["photos"], first["errors"]) == (1797, 4, 2, 1)
    assert (first["rows"], first["rows_new"]) == (599, 599)
    assert first["accuracy"] > 0.95
    assert (lake / "report.html").stat().st_size > 10_000
    found = DeltaTable(lake / "predictions").to_pyarrow_table()
    right = [
        out["label"] == label
        for out, label in zip(*found.select(["out", "label"]).to_pydict().values(), strict=True)
        if out
    ]
    assert sum(right) / len(right) == first["accuracy"]
    again, _ = demo(lake)
    assert (again["rows"], again["rows_new"], again["model_version"]) == (599, 0, first["model_version"])
