"""Secrets of addresses and of the environment: a run leaves none of them, wherever they were given."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig
from lakemill.cli.app import main
from lakemill.predict.progress import check_identity, job_identity
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.masking import masked
from tests.lake import FORMAT_STEP, IMAGE_STEP, image_rows, onnx_classifier

SECRETS = {
    "user": "planted-password-1",
    "signature": "planted-signature-2",
    "token": "planted-token-3",
    "variable": "planted-variable-4",
}


def job(lake: Path, **changes: Any) -> Path:
    """Write a job with a secret in the model's address, the tables' paths, a predicate and the registry's address."""
    folder = lake / "lake"
    if not folder.exists():
        write_deltalake(
            folder / "images", image_rows(0, 4, broken=(2,)), configuration={"delta.enableChangeDataFeed": "true"}
        )
        onnx_classifier(folder / f"model?token={SECRETS['token']}&sig={SECRETS['signature']}.onnx")
    model = next(folder.glob("model*"))
    raw = {
        "name": "secrets",
        "source": {"table": f"{folder}/images", "where": "label <> '${LAKEMILL_PLANTED}'"},
        "pipeline": {"steps": [IMAGE_STEP, {"model": {"uri": str(model)}}, FORMAT_STEP]},
        "output": {"table": f"{folder}/predictions"},
        "engine": {"name": "local"},
        "registry": f"http://me:{SECRETS['user']}@127.0.0.1:9/mlflow?token={SECRETS['token']}",
    }
    (lake / "job.yaml").write_text(yaml.safe_dump(raw | changes), encoding="utf-8")
    return lake / "job.yaml"


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(str(end.value.code))


def left_by(lake: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all files that a run left, but the job's own YAML and the model; Parquet by its values."""
    for file in lake.rglob("*"):
        if file.is_file() and file.name != "job.yaml" and not file.name.startswith("model?"):
            yield file.name, file.read_bytes()
    for table in ("predictions", "predictions_runs", "predictions_tasks", "errors"):
        if (found := next(lake.glob(f"*/{table}"), None)) is not None and (found / "_delta_log").exists():
            yield table, repr(DeltaTable(found).to_pyarrow_table().to_pylist()).encode()


def planted_in(said: str, lake: Path) -> list[tuple[str, str]]:
    """Return each secret that the output or a file left behind holds, and where."""
    texts = [("output", said.encode()), *left_by(lake)]
    return [(where, kind) for where, text in texts for kind, secret in SECRETS.items() if secret.encode() in text]


def test_a_run_leaves_no_secret(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEMILL_PLANTED", SECRETS["variable"])
    caplog.set_level(logging.INFO)
    file = job(tmp_path, quarantine={"table": f"{tmp_path}/lake/errors"})
    for arguments in (
        ("plan", "--json"),
        ("plan",),
        ("predict", "--json"),
        ("predict",),
        ("status", "--json"),
        ("status",),
    ):
        assert command(*arguments, "--config", file) == 0
    command("doctor", "--json", "--config", file)
    assert command("predict", "--config", job(tmp_path, pipeline={"uri": "models:/a@b"})) != 0
    assert command("predict", "--config", file, "--set", "source.where=other = '${LAKEMILL_PLANTED}'") != 0
    assert command("predict", "--config", file, "--set", f"source.table=s3://me:{SECRETS['user']}@bucket/t") != 0
    assert command("predict", "--config", file, "--set", f"mode=sig={SECRETS['signature']}") != 0
    said = "".join(capfd.readouterr())
    assert "REGISTRY_UNREACHABLE" in said
    assert "4 rows" in said
    assert not planted_in(said + caplog.text, tmp_path)


def test_another_secret_is_another_job_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity file is masked; a predicate with another value of its variable would skip or double rows."""

    def identity(where: str) -> dict[str, Any]:
        config = PredictConfig.load(
            None, (), source={"table": "a/b", "where": where}, output={"table": "a/c"}, pipeline={"uri": "m"}
        )
        return job_identity(config, ["path"], "table")

    monkeypatch.setenv("LAKEMILL_PLANTED", "one-site")
    one, plain = identity("site = '${LAKEMILL_PLANTED}'"), identity("site = 'one-site'")
    monkeypatch.setenv("LAKEMILL_PLANTED", "two-sites")
    two = identity("site = '${LAKEMILL_PLANTED}'")
    assert one["where"] == two["where"] == "site = '${LAKEMILL_PLANTED}'"
    check_identity(one, plain, None)
    older = {"where": "site = 'one-site'", "source_id": "table"}
    check_identity(older, older | {"sha256": {}}, None)  # an older file
    with pytest.raises(ConfigError, match=r"^\[CHECKPOINT_OTHER_JOB\].*where"):
        check_identity(one, two, None)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:a/b@db/x",
        "sas_token=abc;x",
        "fs.s3a.secret.key=abc",
        "password='abc def'",
        'pwd="abc def"',
        "https://h/c?sv=1&SIG=abc",
        "MY_API_KEY=abc",
        "accountkey=abc==",
    ],
)
def test_secrets_in_other_spellings_are_masked(text: str) -> None:
    for secret in ("a/b", "abc", "def"):
        assert secret not in masked(text)


@pytest.mark.parametrize("text", ["http://host:5000/a@b", "s3://b/design=1", "models:/a@b", "s3://b/key@2x.png"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text
    assert json.loads(masked(json.dumps({"x": text}))) == {"x": text}
