"""What rows and names hold is text: no terminal obeys it, no markup is made of it, and no name breaks anything."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from rich.console import Console

from lakemill.cli.app import main
from lakemill.cli.output import MaskedStream
from lakemill.cli.preview_table import preview_table
from lakemill.report.page import render
from lakemill.report.values import Card, Report, Totals
from lakemill_udfs.errors import RunError
from lakemill_udfs.masking import printable
from tests.security.hostile import CONTROL

NAMES = ["[/x]", "[bold]b", "a\u2024b", "c.d", "e`f", "\u202eg", "h\x1b[2J", "i j"]
"""Names of columns: markup, dots of two kinds, quotes, control characters."""


def obeyed(text: str) -> list[str]:
    """Return the characters of a text that a terminal would obey."""
    return [character for character in text if printable(character) != character and character != "\n"]


def on_a_terminal(what: Any) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def job(lake: Path, columns: dict[str, list[str]], *, key: str = "id") -> Path:
    """Write a table and the YAML of a job that gives one of its columns back, and carries all."""
    write_deltalake(lake / "rows", pa.table({"id": ["1", "2"], **columns}))
    step = {"function": "tests.security.hostile:same", "inputs": {"text": next(iter(columns))}}
    raw = {
        "name": "names",
        "source": {"table": f"{lake}/rows", "key": [key], "columns": [name for name in columns if name != key]},
        "pipeline": {"steps": [{"python": step | {"outputs": {"y": {"dtype": "string"}}}}]},
        "output": {"table": f"{lake}/predictions"},
        "engine": {"name": "local"},
    }
    (lake / "job.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return lake / "job.yaml"


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(str(end.value.code))


@pytest.mark.parametrize("where", ["values", "names"])
def test_what_a_terminal_would_obey_is_shown_as_escapes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    file = job(tmp_path, {"text": [CONTROL, "b"]} if where == "values" else {CONTROL: ["a", "b"]})
    for arguments in (("plan",), ("predict", "--limit", "2"), ("predict",), ("status",), ("predict", "--json")):
        assert command(*arguments, "--config", file) == 0
    said = "".join(capfd.readouterr())
    assert obeyed(said) == []
    assert "a\\x1b[2J" in said
    frame = pd.DataFrame([{CONTROL: CONTROL, "out": {CONTROL: CONTROL}}])
    assert obeyed(on_a_terminal(preview_table(frame))) == []
    assert obeyed(str(RunError("WORKER_DIED", CONTROL, hint=CONTROL))) == []
    stream = io.StringIO()
    MaskedStream(stream).write(f"{CONTROL}\n")
    assert obeyed(stream.getvalue()) == []


def test_the_report_turns_no_text_around() -> None:
    card = Card(CONTROL, CONTROL)
    assert "\u202e" in CONTROL
    page = render(Report(CONTROL, CONTROL, CONTROL, Totals(1), sample=(card,)))
    assert obeyed(page) == []


def test_columns_may_have_any_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A column named ``[/x]`` ended the preview with an error of its markup."""
    file = job(tmp_path, {name: [f"{name} 1", f"{name} 2"] for name in NAMES}, key="[/x]")
    for arguments in (("plan",), ("predict", "--limit", "1"), ("predict",), ("status", "--json")):
        assert command(*arguments, "--config", file) == 0
    capfd.readouterr()
    rows = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    assert sorted([row[name] for name in NAMES] for row in rows) == [
        [f"{name} {number}" for name in NAMES] for number in (1, 2)
    ]


def test_what_nobody_foresaw_is_shown_as_escapes_too(tmp_path: Path) -> None:
    script = f"from lakemill.cli.output import print_unforeseen\nprint_unforeseen(ValueError({CONTROL!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "ValueError" in done.stderr
    assert obeyed(done.stderr) == []
    assert json.loads(json.dumps({"x": CONTROL})) == {"x": CONTROL}
