"""Tables and progress on an object store: a real S3 client against a server of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.engine import Following, Slice, Transaction, Watch
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.schemas import predictions_schema
from tests.unit.plans import function, plan_for

START_SECONDS = 30


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Yield the address of an S3 server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(address, timeout=1).close()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                break
        yield address
        process.terminate()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a bucket's URI; the environment says how it is reached, as on any machine."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    put = urllib.request.Request(f"{server}/bucket", method="PUT")  # noqa: S310 -- the server above
    urllib.request.urlopen(put).close()  # noqa: S310
    return "s3://bucket/a lake"


def test_a_job_on_a_store(bucket: str) -> None:
    source, output = f"{bucket}/source", f"{bucket}/predictions"
    for number in range(3):
        rows = pa.table({"id": [number, number + 10], "part": ["a b", None], "x": pa.array([number] * 2, pa.float32())})
        write_deltalake(source, rows, mode="append", partition_by=["part"])
    with LocalEngine(forced="processes") as engine:
        snapshot = engine.snapshot(source)
        assert snapshot is not None
        plan = plan_for([function("double")], snapshot.schema, passthrough=("id",), batch_rows=1)
        assert engine.make(output, predictions_schema(plan, snapshot.schema))
        counts: list[int] = []

        def on_slice(new: Slice) -> None:
            with engine.scored(new.rows, plan, into=output) as scored:
                counts.append(scored.rows)
                assert engine.append(scored, output, Transaction("job", new.batch_id))

        for _ in range(2):
            checkpoint = Checkpoint(f"{bucket}/checkpoint")
            what = Following(snapshot, "part IS NULL OR id < 2", False, "job", "r", checkpoint, 2**30)
            engine.follow(what, on_slice, Watch())
        assert counts == [5]
        predictions = engine.snapshot(output)
        assert predictions is not None
        assert sorted(engine.rows(predictions).to_arrow()["id"].to_pylist()) == [0, 1, 10, 11, 12]
        with engine.scored(engine.rows(snapshot).where("id < 2"), plan) as scored:
            assert engine.merge(scored, output, ["id"], gone=engine.given(pa.table({"id": [12]})))
        assert engine.delete(output, "id = 10") == 1
        predictions = engine.snapshot(output)
        assert predictions is not None
        assert sorted(engine.rows(predictions).to_arrow()["id"].to_pylist()) == [0, 1, 11]
