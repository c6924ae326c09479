"""The command line before any engine starts: its version, what it prints, and what it keeps to itself."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from lakemill.cli.app import guarded, run
from lakemill.cli.output import finish, tell
from lakemill.config.variables import expand
from lakemill_udfs.errors import RunError


def lakemill(*arguments: str | Path) -> int:
    return guarded(lambda: run([str(argument) for argument in arguments]))


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert lakemill("--version") == 0
    assert capsys.readouterr().out == f"lakemill {version('lakemill')}\n"


def test_no_output_shows_what_a_variable_stands_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct-horse")
    registry = expand("postgresql://me:${DB_PASSWORD}@host/mlflow")
    assert registry == "postgresql://me:correct-horse@host/mlflow"

    def job() -> int:
        tell(f"looking into {registry}")
        print(json.dumps({"registry": registry}))
        finish(f"done with {registry}", {"registry": registry}, as_json=True)
        raise RunError("STORAGE_DENIED", f"'{registry}' does not answer.", hint=f"try {registry}")

    assert guarded(job) == 1
    said = capsys.readouterr()
    assert "correct-horse" not in said.out + said.err
    assert (said.out + said.err).count("postgresql://me:${DB_PASSWORD}@host/mlflow") == 6
