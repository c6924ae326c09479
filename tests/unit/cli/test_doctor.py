"""The doctor says what is right, what is not and what to do, and runs nothing of what it looks at."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lakemill import PredictConfig
from lakemill.cli import doctor
from lakemill.cli.app import guarded, run
from lakemill.cli.doctor import examine


def states(config: PredictConfig | None = None, registry: str | None = None) -> dict[str, tuple[str, str]]:
    return {found.subject: (found.state, found.line()) for found in examine(config, registry)}


@pytest.fixture
def server() -> Iterator[str]:
    """Yield the address of a registry that only says how it is."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://me:correct-horse@127.0.0.1:{http.server_port}"
        http.shutdown()


def test_this_machine_is_as_it_should_be() -> None:
    found = states()
    assert found["java"][0] == found["spark"][0] == found["packages"][0] == found["python"][0] == "right"
    assert found["extra onnx"][0] == "right"


def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    state, line = states()["java"]
    assert state == "missing"
    assert "only jobs on Spark need it, the local engine does not -> Debian, Ubuntu: apt-get install openjdk-17" in line
    job = {"pipeline__uri": "models:/digits/1", "source__table": "lake/a", "output__table": "lake/b"}
    assert states(PredictConfig.load(**job))["java"][0] == "missing"
    assert states(PredictConfig.load(**job, engine__name="spark"))["java"][0] == "wrong"
    catalog = {"source__table": "main.images", "output__checkpoint": "lake/checkpoint"}
    assert states(PredictConfig.load(**job | catalog))["java"][0] == "wrong"


def test_a_jobs_tables_models_and_output(tmp_path: Path) -> None:
    (tmp_path / "images" / "_delta_log").mkdir(parents=True)
    (tmp_path / "images" / "_delta_log" / f"{0:020d}.json").write_text("{}\n")
    (tmp_path / "model.onnx").write_bytes(b"not looked into")
    values = {"pipeline__uri": f"{tmp_path}/model.onnx", "output__table": f"{tmp_path}/predictions"}
    right = states(PredictConfig.load(source__table=f"{tmp_path}/images", **values))
    assert {state for subject, (state, _) in right.items() if str(tmp_path) in subject} == {"right"}
    values = {"pipeline__uri": f"{tmp_path}/gone.onnx", "output__table": f"{tmp_path}/predictions"}
    wrong = states(PredictConfig.load(source__table=f"{tmp_path}/gone", **values))
    assert wrong[f"source {tmp_path}/gone"][0] == "wrong"
    assert wrong[f"model {tmp_path}/gone.onnx"][0] == "wrong"


def test_a_registry_is_asked_and_its_password_is_not_shown(server: str, tmp_path: Path) -> None:
    ((_, (state, line)),) = [item for item in states(registry=server).items() if "registry" in item[0]]
    assert state == "right"
    assert "answers (200)" in line
    assert "correct-horse" not in line
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("CREATE TABLE registered_models (name TEXT)")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert states(registry=uri)[f"registry {uri}"] == ("right", f"right    registry {uri}: 0 registered models")
    assert states(registry=f"{uri}x")[f"registry {uri}x"][0] == "wrong"
    assert not (tmp_path / "mlflow.dbx").exists(), "asking makes nothing"


def test_a_registry_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert states(registry=uri)[f"registry {uri}"][0] == "wrong"


def test_the_command_ends_with_2_if_something_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/none.db"
    assert guarded(lambda: run(["doctor", "--registry", uri, "--json"])) == 2
    found = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found[f"registry {uri}"]["state"] == "wrong"
    assert found[f"registry {uri}"]["do"]


def test_nothing_foreign_is_imported() -> None:
    script = "import sys; from lakemill.cli.doctor import examine; list(examine()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"mlflow", "onnxruntime", "sklearn", "torch", "pyspark.sql"} & set(done.stdout.split()) == set()
