"""The command line: exit codes, one line for an error, one JSON object for a machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from jobs import predict_batch, predict_stream
from lakemill import PredictConfig, predict_table
from lakemill.cli.app import guarded, run
from tests.lake import onnx_classifier, steps, write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def job(tmp_path: Path, spark: SparkSession) -> Path:
    """Return a predict job's YAML file over ten images, two of them broken."""
    write_images(spark, tmp_path / "images", 0, 10, broken=(1, 2))
    onnx_classifier(tmp_path / "model.onnx")
    raw = {
        "name": "digits",
        "source": {"table": f"{tmp_path}/images"},
        "pipeline": {"steps": steps(tmp_path / "model.onnx")},
        "output": {"table": f"{tmp_path}/predictions"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path / "job.yaml"


def lakemill(*arguments: str | Path) -> int:
    return guarded(lambda: run([str(argument) for argument in arguments]))


def test_the_command_and_the_job_do_the_same(
    job: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lakemill("predict", "--config", job, "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["job"], facts["rows"], facts["rows_error"], facts["batches"]) == ("digits", 10, 2, 1)
    assert predict_batch.main(["--config", str(job), "--json"], spark) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["rows"] == 0
    assert "nothing new" in printed.err


def test_the_stream_command_and_its_job_share_the_checkpoint(
    job: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lakemill("stream", "--config", job, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["rows"] == 10
    assert "behind 0 rows" in printed.err
    assert predict_stream.main(["--config", str(job), "--json"], spark) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 0


def test_a_stream_that_is_told_to_end_finishes_its_batch(job: Path, spark: SparkSession) -> None:
    command = [sys.executable, "-c", "from lakemill.cli.app import main; main()", "stream"]
    command += ["--config", str(job), "--set", "trigger=1 second", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert any(": committed 10 rows" in line for line in process.stderr)
        process.terminate()
        said, facts = process.stderr.read(), process.stdout.read()
    assert process.returncode == 0, said
    assert "stopping after the running batch" in said
    assert "Traceback" not in said
    assert json.loads(facts.splitlines()[-1])["rows"] == 10
    again = predict_table(PredictConfig.load(job), spark)
    assert (again.rows, again.batches) == (0, 0)


def test_too_many_errors_is_exit_code_3(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lakemill("predict", "--config", job, "--set", "quarantine.max_ratio=0.1") == 3
    assert "[TOO_MANY_ERRORS] 2 of 10 rows have errors (20.0%)" in capsys.readouterr().err


def test_a_drafted_job_is_planned_and_run_as_it_is(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.parent)
    table, model = f"{job.parent}/images", f"{job.parent}/model.onnx"
    drafted = ["drafted.yaml", "--source", table, "--model", model, "--output", f"{job.parent}/drafted"]
    assert lakemill("init", *drafted) == 0
    assert lakemill("plan", "--config", "drafted.yaml") == 0
    assert "no problems" in capsys.readouterr().out
    assert lakemill("predict", "--config", "drafted.yaml", "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["rows"], facts["rows_error"]) == (10, 2)
    assert lakemill("init", *drafted) == 2
    assert "[CONFIG_EXISTS]" in capsys.readouterr().err


def test_limit_shows_rows_and_writes_nothing(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lakemill("predict", "--config", job, "--limit", "3") == 0
    shown = capsys.readouterr().out
    assert "img/0000.png" in shown
    assert "IMAGE_TRUNCATED" in shown
    assert not (job.parent / "predictions").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "engine.bath_rows=3"], "unknown key 'engine.bath_rows', did you mean 'batch_rows'?"),
        (["--mode", "ful"], "'mode'"),
        (["--set", "engine"], "--set needs key=value"),
        (["--lmit", "3"], "No such option: --lmit"),
    ],
)
def test_wrong_arguments_are_exit_code_2_before_spark_starts(
    job: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lakemill("predict", "--config", job, *arguments) == 2
    assert says in capsys.readouterr().err


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert lakemill("predict", "--config", "nowhere.yaml") == 2
    assert "[CONFIG_NOT_FOUND] there is no configuration file 'nowhere.yaml'." in capsys.readouterr().err
