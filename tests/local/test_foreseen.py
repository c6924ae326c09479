"""What goes wrong around a job has a code and names its cause: damaged files of ours, an output's rules, odd names."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType

from lakemill import LakemillError, PredictConfig, predict_table
from lakemill.config.ingest import IngestConfig
from lakemill.engines.full_text import kept_text
from lakemill.ingest.job import ingest_images
from lakemill.plan.job import plan_job
from lakemill.predict.redo import reset_job, retry_errors
from lakemill.predict.status import job_status


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a folder with a source of 3 rows."""
    add(tmp_path, 0, 3)
    return tmp_path


def add(lake: Path, start: int, count: int, **columns: Any) -> None:
    numbers = range(start, start + count)
    rows = {"id": list(numbers), "x": [float(number) for number in numbers]}
    rows |= {name: [value] * count for name, value in columns.items()}
    feed = {"delta.enableChangeDataFeed": "true"}
    write_deltalake(lake / "source", pa.table(rows), mode="append", schema_mode="merge", configuration=feed)


def job(lake: Path, **values: Any) -> PredictConfig:
    step = {"function": "tests.local.job_functions:twice", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    usual = {
        "name": "foreseen",
        "source__table": f"{lake}/source",
        "source__key": ["id"],
        "pipeline__steps": [{"python": step}],
        "output__table": f"{lake}/predictions",
        "engine": {"name": "local"},
    }
    return PredictConfig.load(**usual | values)


def refusal(config: PredictConfig | IngestConfig, call: Any = predict_table) -> LakemillError:
    with pytest.raises(LakemillError) as raised:
        call(config)
    return raised.value


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"host": 1}'])
def test_a_damaged_lock_is_taken_over_with_a_line(lake: Path, text: bytes) -> None:
    lock = lake / "predictions_checkpoint/foreseen.lock"
    lock.parent.mkdir()
    lines: list[str] = []
    for call in (lambda config: predict_table(config, progress=lines.append), job_status, retry_errors, reset_job):
        lock.write_bytes(text)
        call(job(lake))
    assert "taking over the lock that is damaged" in lines
    assert not lock.exists()


@pytest.mark.parametrize("name", ["lakemill.json", "metadata", "offsets/0", "commits/0"])
@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}"])
def test_a_damaged_checkpoint_is_taken_over_with_a_line(lake: Path, name: str, text: bytes) -> None:
    predict_table(job(lake))
    add(lake, 3, 1)
    file = lake / "predictions_checkpoint/foreseen" / name
    for call in (plan_job, job_status, retry_errors):
        file.write_bytes(text)
        with contextlib.suppress(LakemillError):
            call(job(lake))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    lines: list[str] = []
    predict_table(job(lake), progress=lines.append)
    if not (name == "commits/0" and text == b"{}"):  # that says as much as Spark's own
        assert any("damaged" in line for line in lines), lines
    ids = DeltaTable(lake / "predictions").to_pyarrow_table()["id"].to_pylist()
    assert sorted(ids) == [0, 1, 2, 3]
    file.write_bytes(text)
    assert reset_job(job(lake)) == 4


@pytest.mark.parametrize(
    "key", ["source__table", "output__table", "output__checkpoint", "quarantine__table", "pipeline__steps"]
)
@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_system_takes_is_refused(lake: Path, key: str, name: str) -> None:
    value: Any = f"{lake}/{name}"
    if key == "pipeline__steps":
        value = [{"model": {"uri": f"{lake}/{name}.onnx"}}]
    error = refusal(job(lake, **{key: value}))
    assert error.code == ("MODEL_NOT_FOUND" if key == "pipeline__steps" else "PATH_INVALID")
    assert [path.name for path in lake.iterdir()] == ["source"]
    if key == "source__table":
        assert refusal(job(lake, **{key: value}), job_status).code == "TABLE_NOT_FOUND"


def test_an_ingest_from_a_name_that_no_file_system_takes_is_refused(lake: Path) -> None:
    (lake / "photos").mkdir()
    for name, output, code in (("x" * 300, "images", "SOURCE_NOT_FOUND"), ("photos", "y" * 250, "PATH_INVALID")):
        config = IngestConfig.load(source__path=f"{lake}/{name}", output__table=f"{lake}/{output}")
        assert refusal(config, ingest_images).code == code


def test_the_name_of_a_side_table_counts_too(lake: Path) -> None:
    assert refusal(job(lake, output__table=f"{lake}/{'y' * 250}")).code == "PATH_INVALID"


def test_a_corrupt_file_of_the_source_is_named(lake: Path) -> None:
    add(lake, 3, 3)
    file = Path(DeltaTable(lake / "source").file_uris()[0].removeprefix("file://"))
    file.write_bytes(file.read_bytes()[:40])
    error = refusal(job(lake))
    assert error.code == "STORAGE_READ"
    assert file.name in error.message


@pytest.mark.parametrize("values", [{"mode": "full"}, {"source__changes": "upsert"}, {"rescore": "changed"}])
def test_an_append_only_output_is_refused_before_anything_is_scored(lake: Path, values: dict[str, Any]) -> None:
    predict_table(job(lake))
    DeltaTable(lake / "predictions").alter.set_table_properties({"delta.appendOnly": "true"})
    version = DeltaTable(lake / "predictions").version()
    error = refusal(job(lake, **values))
    assert error.code == "OUTPUT_APPEND_ONLY"
    assert DeltaTable(lake / "predictions").version() == version
    add(lake, 3, 2)
    assert predict_table(job(lake)).rows == 2


def test_an_output_with_a_column_that_must_not_be_null_is_refused(lake: Path) -> None:
    predict_table(job(lake))
    table = DeltaTable(lake / "predictions")
    fields = [*table.schema().fields, Field("note", PrimitiveType("string"), nullable=False)]
    DeltaTable.create(lake / "strict", Schema(fields), commit_properties=CommitProperties())
    error = refusal(job(lake, name="other", output__table=f"{lake}/strict"))
    assert error.code == "OUTPUT_CONSTRAINT"
    assert "note" in error.message


@pytest.mark.parametrize("version", [-1, 10**30])
def test_a_version_that_no_table_can_have_is_refused_in_the_configuration(lake: Path, version: int) -> None:
    with pytest.raises(LakemillError, match=r"^\[CONFIG_INVALID\].*source.version"):
        job(lake, mode="full", source__version=version)


def test_a_run_names_the_version_that_it_read(lake: Path) -> None:
    add(lake, 3, 2)
    assert predict_table(job(lake, mode="full", source__version=0)).source_version == 0
    assert predict_table(job(lake, mode="full", source__version="0")).source_version == 0
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    assert {row["metadata"]["source_version"] for row in rows} == {0}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"pipeline__steps": [{"python": {"function": "absent:f", "outputs": {"y": {}}}}]}, "FUNCTION_NOT_FOUND"),
        ({"pipeline__checks": [{"name": "odd", "expr": "out.y >"}]}, "CHECK_EXPRESSION"),
        ({"pipeline__steps": [{"model": {"uri": "absent.onnx"}}]}, "MODEL_NOT_FOUND"),
        ({"source__table": "absent/table"}, "TABLE_NOT_FOUND"),
    ],
)
def test_what_needs_no_engine_is_said_before_one_starts(lake: Path, values: dict[str, Any], code: str) -> None:
    began = time.monotonic()
    assert refusal(job(lake, engine={"name": "spark"}, **values)).code == code
    assert time.monotonic() - began < 2


def test_what_nobody_foresaw_is_in_a_file_that_only_its_owner_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = kept_text("a row's secret", "Spark's")
    path = Path(hint.split("'")[2])
    try:
        assert "secret" not in hint
        assert path.read_text() == "a row's secret"
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
        assert path.stat().st_uid == os.getuid()
    finally:
        path.unlink()
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert "no file takes it" in kept_text("a row's secret", "Spark's")
