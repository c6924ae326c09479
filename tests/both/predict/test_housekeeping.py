"""Looking after a job: its state, compaction, new outputs, rows that are the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from lakemill import PredictConfig
from lakemill.cli.app import run
from tests.both.on import On
from tests.lake import add_images, onnx_classifier, steps

DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
def lake(tmp_path: Path, on: On) -> Path:
    """Yield a folder with 6 images, one of them broken, a model and a job."""
    add_images(tmp_path / "images", 0, 6, broken=(4,))
    onnx_classifier(tmp_path / "model.onnx")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(tmp_path, on.name)))
    return tmp_path


def job(lake: Path, engine: str) -> dict[str, Any]:
    return {
        "name": "digits",
        "source": {"table": f"{lake}/images", "columns": ["label"]},
        "pipeline": {"steps": steps(lake / "model.onnx")},
        "output": {"table": f"{lake}/predictions"},
        "engine": {"name": engine},
    }


def config_of(lake: Path, *overrides: str) -> PredictConfig:
    return PredictConfig.load(lake / "job.yaml", overrides)


def predictions(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


def command(lake: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run a command of the command line and return the facts it prints."""
    assert run([*arguments, "--config", f"{lake}/job.yaml", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_status_tells_lag_runs_and_errors(lake: Path, on: On, capsys: pytest.CaptureFixture[str]) -> None:
    result = on.predict(config_of(lake))
    add_images(lake / "images", 6, 2)
    DeltaTable(lake / "images").optimize.compact()
    facts = command(lake, capsys, "status")
    assert (facts["scored_version"], facts["source_version"], facts["lag_versions"], facts["lag_rows"]) == (0, 2, 2, 2)
    assert (facts["rows"], facts["rows_error"], facts["running"]) == (6, 1, None)
    assert facts["pipeline_versions"] == {result.pipeline_version: 6}
    assert [(one["run_id"], one["status"], one["rows"]) for one in facts["runs"]] == [(result.run_id, "done", 6)]


@pytest.mark.seam
def test_delta_keeps_bounds_of_the_key_and_carried_columns(lake: Path, on: On) -> None:
    on.predict(config_of(lake))
    table = DeltaTable(f"{lake}/predictions")
    assert table.metadata().configuration["delta.dataSkippingNumIndexedCols"] == "3"  # path, label, time
    bounds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    assert min(file["min.path"] for file in bounds) == "img/0000.png"
    assert sum(file["num_records"] for file in bounds) == 6
    if on.name == "spark":  # which would pay for each more
        assert {"min.path", "min.label", "min.time"} == {key for key in bounds[0] if key.startswith("min.")}


def test_retry_undo_and_reset_are_commands(lake: Path, on: On, capsys: pytest.CaptureFixture[str]) -> None:
    result = on.predict(config_of(lake))
    assert command(lake, capsys, "retry")["rows_error"] == 1
    assert command(lake, capsys, "undo", result.run_id) == {"rows": 5}
    assert command(lake, capsys, "predict", "--reset", "--yes")["rows"] == 6
    assert len(predictions(lake)) == 6


@pytest.mark.parametrize(("answer", "rows"), [("n", 0), ("y", 6)])
def test_a_reset_asks_first(
    lake: Path,
    on: On,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    rows: int,
) -> None:
    first = on.predict(config_of(lake))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    assert run(["predict", "--config", f"{lake}/job.yaml", "--reset"]) == (0 if rows else 1)
    assert "This deletes all predictions of the job 'digits'" in capsys.readouterr().err
    assert {row["metadata"]["run_id"] == first.run_id for row in predictions(lake)} == {not rows}


def test_new_checks_and_outputs_are_added_to_the_output(lake: Path, on: On) -> None:
    on.predict(config_of(lake))
    unsure = 'pipeline.checks=[{name: unsure, expr: "out.probability < 2.0"}]'
    again = on.predict(config_of(lake, unsure, "mode=missing"))
    assert again.rows == 6
    assert all(row["anomaly"]["unsure"] for row in predictions(lake) if row["error"] is None)
    add_images(lake / "images", 6, 1)
    assert on.predict(config_of(lake)).rows == 1  # without the check: null there
    assert [row["anomaly"]["unsure"] for row in predictions(lake) if row["path"] == "img/0006.png"] == [None]


def renamed(images: pa.Table, path: Callable[[str], str]) -> pa.Table:
    """Return the same images under other paths and labels."""
    paths = pa.array([path(old) for old in images["path"].to_pylist()])
    labels = pa.array([f"{label}-copy" for label in images["label"].to_pylist()])
    return images.set_column(images.column_names.index("path"), "path", paths).set_column(
        images.column_names.index("label"), "label", labels
    )


@pytest.mark.seam
def test_the_same_content_is_scored_once_and_has_a_row_each(lake: Path, on: On) -> None:
    rows = DeltaTable(lake / "images").to_pyarrow_table()
    write_deltalake(lake / "images", renamed(rows, lambda path: f"copy/{path}"), mode="append")
    result = on.predict(config_of(lake, "deduplicate=content"))
    assert (result.rows, result.rows_error) == (12, 2)
    assert sum(task["rows"] for task in result.tasks) == 6
    rows = predictions(lake)
    copied, first = rows[:6], rows[6:]
    assert [row["label"] for row in copied] == [f"{row['label']}-copy" for row in first]
    assert [row["out"] for row in copied] == [row["out"] for row in first]
    assert len({row["path"] for row in rows}) == 12


@pytest.mark.parametrize("has_digest", [False, True], ids=["computed", "of ingest"])
def test_content_that_an_earlier_commit_scored_is_not_scored_again(lake: Path, on: On, has_digest: bool) -> None:
    images = DeltaTable(lake / "images").to_pyarrow_table().sort_by("number")
    if has_digest:
        digests = [hashlib.sha256(content).hexdigest() for content in images["content"].to_pylist()]
        images = images.append_column("sha256", pa.array(digests))
    write_deltalake(lake / "some", images.slice(0, 3))
    some = f"source.table={lake}/some"
    job = config_of(lake, "deduplicate=content", some)
    assert on.preview(job, 3)["out"].notna().any()
    before = on.predict(config_of(lake, some))  # of these no digest is known
    write_deltalake(lake / "some", images.slice(3), mode="append")
    first = on.predict(job)
    write_deltalake(lake / "some", renamed(images, lambda path: f"{path}-copy"), mode="append")
    second = on.predict(job)
    assert [(run.rows, run.rows_error) for run in (before, first, second)] == [(3, 0), (3, 1), (6, 1)]
    # Those of the first run, and the broken one: an error may have been of the moment.
    assert sum(task["rows"] for task in second.tasks) == 4
    rows = predictions(lake)
    contents = {row["path"]: row["content"] for row in DeltaTable(f"{lake}/some").to_pyarrow_table().to_pylist()}
    for number, (original, copy) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
        assert copy["path"] == f"{original['path']}-copy"
        assert copy["label"] == f"{original['label']}-copy"
        assert copy["out"] == original["out"]
        assert copy["metadata"]["models"] == original["metadata"]["models"]
        assert (copy["metadata"]["run_id"], copy["metadata"]["source_version"]) == (second.run_id, 2)
        assert copy["metadata"]["input_sha256"] == hashlib.sha256(contents[copy["path"]]).hexdigest()
        known = None if number < 3 else copy["metadata"]["input_sha256"]
        assert original["metadata"]["input_sha256"] == known
    full = on.predict(config_of(lake, "deduplicate=content", some, "mode=full"))
    assert full.rows == 12
    assert sum(task["rows"] for task in full.tasks) == 6


def test_compaction_of_the_output_hinders_no_run(lake: Path, on: On, capsys: pytest.CaptureFixture[str]) -> None:
    on.predict(config_of(lake))
    add_images(lake / "images", 6, 1)
    on.predict(config_of(lake))
    facts = command(lake, capsys, "optimize")
    assert facts[f"{lake}/predictions"]["files_removed"] == 2
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    add_images(lake / "images", 7, 1)
    assert on.predict(config_of(lake)).rows == 1
    assert len(predictions(lake)) == 8


def test_vacuum_leaves_what_time_travel_and_jobs_need(lake: Path, on: On, capsys: pytest.CaptureFixture[str]) -> None:
    on.predict(config_of(lake))
    left_by_a_crash = lake / "predictions" / "part-00000-of-no-commit.snappy.parquet"
    left_by_a_crash.write_bytes(b"PAR1")
    os.utime(left_by_a_crash, (time.time() - 8 * DAY_SECONDS,) * 2)
    add_images(lake / "images", 6, 1)
    on.predict(config_of(lake))
    command(lake, capsys, "optimize")
    facts = command(lake, capsys, "vacuum")
    assert set(facts) == {f"{lake}/predictions{suffix}" for suffix in ("", "_runs", "_tasks")}
    assert not left_by_a_crash.exists()
    earlier = DeltaTable(f"{lake}/predictions", version=1).to_pyarrow_table()
    assert len(earlier) == 6, "files of versions within the retention are there"
    add_images(lake / "images", 7, 1)
    assert on.predict(config_of(lake)).rows == 1
