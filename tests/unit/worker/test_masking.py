"""Secrets of URIs are hidden wherever a text holds them, and a registry that does not answer is said in seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lakemill.pipelines import reachable
from lakemill.pipelines.reachable import check_reachable
from lakemill_udfs.errors import ModelError
from lakemill_udfs.masking import masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:hunter2@host/path", "https://***@host/path"),
        (
            "see 'postgresql+psycopg2://me:p@ss@db:5432/mlflow' there",
            "see 'postgresql+psycopg2://***@db:5432/mlflow' there",
        ),
        ("https://token@host", "https://***@host"),
        ("abfss://container@account.dfs.core.windows.net/a", "abfss://container@account.dfs.core.windows.net/a"),
        (
            "https://a.blob.core.windows.net/c?sv=1&sig=abc%2F&se=2",
            "https://a.blob.core.windows.net/c?sv=1&sig=***&se=2",
        ),
        (
            "s3://b/k?X-Amz-Signature=abc&X-Amz-Security-Token=def",
            "s3://b/k?X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        ("AccountName=a;AccountKey=abc==;EndpointSuffix=x", "AccountName=a;AccountKey=***;EndpointSuffix=x"),
        ("models:/digits@production", "models:/digits@production"),
        ("s3://bucket/design=1/part", "s3://bucket/design=1/part"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(masked(text)) == expected


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """Listen on a port; send an answer to whoever connects, or say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def serve() -> None:
            try:
                held.append(listening.accept()[0])
                if answer is not None:
                    held[0].recv(1000)
                    held[0].sendall(answer)
                    held[0].close()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def test_any_answer_is_one() -> None:
    for status in (b"200 OK", b"401 Unauthorized", b"404 Not Found"):
        with server(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as port:
            check_reachable(f"http://me:secret@127.0.0.1:{port}/mlflow")
    check_reachable("sqlite:///nowhere/mlflow.db")


def test_a_server_that_cannot_answer_gives_no_answer() -> None:
    for status in (b"500 Internal Server Error", b"503 Service Unavailable"):
        with (
            server(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as port,
            pytest.raises(ModelError, match=r"^\[REGISTRY_UNREACHABLE\] .* does not answer \(5\d\d "),
        ):
            check_reachable(f"http://127.0.0.1:{port}")


def test_an_address_that_is_none_does_not_answer() -> None:
    for uri in ("http://[::1", "http://", "http://host:99999"):
        with pytest.raises(ModelError, match=r"^\[REGISTRY_UNREACHABLE\]"):
            check_reachable(uri)


def test_a_server_that_only_says_it_is_well_is_asked_what_a_job_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "SECONDS", 0.5)

    class Stuck(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/health":
                time.sleep(2)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Stuck) as stuck:
        threading.Thread(target=stuck.serve_forever, daemon=True).start()
        with pytest.raises(ModelError, match=r"^\[REGISTRY_UNREACHABLE\] .* \(TimeoutError\)"):
            check_reachable(f"http://127.0.0.1:{stuck.server_port}")
        stuck.shutdown()


def test_a_registry_that_is_not_there_or_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    started = time.monotonic()
    for scheme in ("http", "postgresql"):
        with pytest.raises(ModelError, match=r"^\[REGISTRY_UNREACHABLE\] .*://\*\*\*@127") as caught:
            check_reachable(f"{scheme}://me:secret@127.0.0.1:{port}")
        assert "secret" not in str(caught.value)
    with server(None) as port, pytest.raises(ModelError, match=r"^\[REGISTRY_UNREACHABLE\]"):
        check_reachable(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 10
