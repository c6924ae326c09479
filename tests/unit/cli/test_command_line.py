"""The command line before any engine starts: its version, what it prints, and what it keeps to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lakemill.cli.app import guarded, run
from lakemill.cli.output import finish, tell
from lakemill.config.json_schema import job_schema
from lakemill.config.predict import PredictConfig
from lakemill.config.variables import expand
from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError, RunError
from lakemill_udfs.steps.declared import ModelStep
from tests.lake import add_images, onnx_classifier

ROOT = Path(__file__).parents[3]


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
    assert (said.out + said.err).count("postgresql://***@host/mlflow") == 6


def test_a_password_in_an_address_is_not_shown_even_if_the_file_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> int:
        tell("asking postgresql://me:battery-staple@host:5432/mlflow, at 12:30 by me@host")
        return 0

    assert guarded(job) == 0
    assert "asking postgresql://***@host:5432/mlflow, at 12:30 by me@host" in capsys.readouterr().err


def test_what_nobody_foresaw_shows_no_secret_either(tmp_path: Path) -> None:
    script = """
from lakemill.cli.app import app, main
from lakemill.config.variables import expand

@app.command()
def broken() -> None:
    raise ValueError(expand("it is ${DB_PASSWORD}"))

main(["broken"])
"""
    environment = {**os.environ, "DB_PASSWORD": "correct-horse"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "ValueError: it is ${DB_PASSWORD}" in done.stderr
    assert "correct-horse" not in done.stderr


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
    assert {"type": "string"} in parts["EngineConfig"]["properties"]["batch_bytes"]["anyOf"], "64MiB"
    assert {"$ref": "#/$defs/Variable"} in schema["properties"]["mode"]["anyOf"], "${MODE}"
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("file", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda path: path.name)
def test_the_example_files_name_their_schema(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).resolve().is_relative_to(ROOT / "docs" / "schema")
    assert (file.parent / schema).is_file()


@pytest.fixture
def without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder of a machine on which there is no Java, so that Spark cannot start."""
    if "pyspark.sql" in sys.modules:  # the session of other tests is not there either
        monkeypatch.setattr(sys.modules["pyspark.sql"].SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("JAVA_HOME", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


NOTHING_THERE = """
name: nothing
source: {table: lake/images, key: [id]}
pipeline: {steps: [{model: {uri: models/there.onnx}}]}
output: {table: lake/predictions}
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict"], "[TABLE_NOT_FOUND] there is no Delta table 'lake/images' (looked in "),
        (["predict", "--limit", "2"], "[TABLE_NOT_FOUND]"),
        (["retry"], "[TABLE_NOT_FOUND]"),
        (["stream"], "[TABLE_NOT_FOUND]"),
        (["plan"], "TABLE_NOT_FOUND"),
        (["status"], "[TABLE_NOT_FOUND] there is no Delta table 'lake/predictions'"),
        (["report"], "[TABLE_NOT_FOUND] there is no Delta table 'lake/predictions'"),
        (["vacuum"], "[TABLE_NOT_FOUND] there is no Delta table 'lake/predictions'"),
        (["optimize"], "[TABLE_NOT_FOUND] there is no Delta table 'lake/predictions'"),
        (["predict", "--set", "source.table=./there"], "[MODEL_NOT_FOUND] 'models/there.onnx' is neither"),
        (["stream", "--set", "source.table=./there"], "[MODEL_NOT_FOUND] 'models/there.onnx' is neither"),
        (["plan", "--set", "source.table=./there"], "MODEL_NOT_FOUND] 'models/there.onnx' is neither"),
    ],
)
def test_what_needs_no_engine_to_be_known_is_said_before_one_starts(
    without_java: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (without_java / "there" / "_delta_log").mkdir(parents=True)
    (without_java / "job.yaml").write_text(NOTHING_THERE)
    assert lakemill(*arguments, "--config", "job.yaml") == 2
    assert says in "".join(capsys.readouterr())
    assert sorted(path.name for path in without_java.iterdir()) == ["job.yaml", "there"], "nothing is left behind"


@pytest.mark.parametrize(
    ("job", "yaml", "says"),
    [
        ("ingest", "source: {path: photos}\noutput: {table: lake/images}\n", "[SOURCE_NOT_FOUND] there is no file or"),
        ("transform", "source: {table: lake/images}\noutput: {table: lake/small}\n", "[TABLE_NOT_FOUND]"),
    ],
)
def test_the_other_jobs_say_it_at_once_too(
    without_java: Path, capsys: pytest.CaptureFixture[str], job: str, yaml: str, says: str
) -> None:
    (without_java / "job.yaml").write_text(yaml)
    assert lakemill(job, "--config", "job.yaml") == 2
    assert says in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "--lmit", "3"], "No such option: --lmit"),
        (["predit"], "No such command 'predit'. Did you mean 'predict'?"),
        (["predict", "--limit", "0"], "'--limit'"),
        (["undo"], "Missing argument 'run_id'"),
        (["predict", "--config"], "'--config' requires an argument"),
        (["schema", "models"], "'models'"),
    ],
)
def test_wrong_arguments_are_one_line_with_a_code(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert lakemill(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("[ARGUMENTS_INVALID] ")
    assert says in line
    assert " --help says what it takes." in line


def test_a_command_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert lakemill() == 2
    assert "Commands" in "".join(capsys.readouterr())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx_classifier(tmp_path / "model.onnx")
    add_images(tmp_path / "images", 0, 2)
    (tmp_path / "rows.json").write_text(json.dumps({"pixels": [[0.5] * 64]}))
    file = tmp_path / "absent" / "result"
    job = ["--source", f"{tmp_path}/images", "--model", f"{tmp_path}/model.onnx", "--output", f"{tmp_path}/out"]
    for arguments in (
        ["init", f"{file}.yaml", *job],
        ["infer", tmp_path / "model.onnx", tmp_path / "rows.json", "--output", f"{file}.json"],
        ["infer", tmp_path / "model.onnx", tmp_path / "rows.json", "--output", f"{file}.parquet"],
    ):
        assert lakemill(*arguments) == 2
        assert f"[FILE_NOT_WRITTEN] '{file}." in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^\[FILE_NOT_WRITTEN\]"):
        Pipeline((ModelStep("model.onnx"),)).to_yaml(f"{file}.yaml")


def test_a_table_is_replaced_by_a_full_run_and_nobody_is_asked_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["--source", f"{tmp_path}/a", "--model", f"{tmp_path}/model.onnx", "--output", f"{tmp_path}/b"]
    assert lakemill("predict", *job, "--replace-table") == 2
    said = capsys.readouterr().err
    assert "[REPLACE_MODE]" in said
    assert "Replace the table?" not in said


def test_what_looks_like_a_picture_s_name_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    finish("column 'a:x:b' of uc:x: 3 rows", {}, as_json=False)
    assert "column 'a:x:b' of uc:x: 3 rows" in capsys.readouterr().err
