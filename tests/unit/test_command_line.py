"""The command line before any engine starts: its version, what it prints, and what it keeps to itself."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from lakemill.cli.app import guarded, run
from lakemill.cli.output import finish, tell
from lakemill.config.json_schema import job_schema
from lakemill.config.predict import PredictConfig
from lakemill.config.variables import expand
from lakemill_udfs.errors import RunError

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("job", ["predict", "ingest", "transform"])
def test_the_schemas_for_editors_are_those_that_the_command_prints(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lakemill("schema", job) == 0
    printed = capsys.readouterr().out
    file = ROOT / "docs" / "schema" / f"{job}.json"
    assert file.read_text(encoding="utf-8") == printed, (
        f"make it anew: lakemill schema {job} > {file.relative_to(ROOT)}"
    )


def test_a_schema_explains_every_key_and_knows_what_pydantic_takes() -> None:
    schema = job_schema(PredictConfig)
    parts = {"": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, inner in part.get("properties", {}).items()
        if "description" not in inner and name not in ("_Kinds", "_Tensor")
    ]
    assert silent == []
    assert parts["EngineConfig"]["properties"]["batch_bytes"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("file", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda path: path.name)
def test_the_example_files_name_their_schema(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).resolve().is_relative_to(ROOT / "docs" / "schema")
    assert (file.parent / schema).is_file()
