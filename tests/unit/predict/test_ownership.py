"""A job's tables and folders lie apart under every spelling, and only a checkpoint's own files are ever deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakemill import IngestConfig, LakemillError, PredictConfig, predict_table
from lakemill.engines.checkpoint import IDENTITY_FILE, Checkpoint
from lakemill.engines.places import canonical, check_apart
from lakemill.engines.table_names import job_name
from lakemill.ingest.places import ingest_places
from lakemill.predict.ownership import check_own, predict_places
from lakemill.predict.redo import reset_job, undo_run
from lakemill.predict.stream import predict_stream


def job(lake: Path | str, **values: Any) -> PredictConfig:
    usual = {"source__table": f"{lake}/images", "pipeline__uri": "model.onnx", "output__table": f"{lake}/predictions"}
    return PredictConfig.load(**usual | values)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, with what is in them."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield the working folder, with a table's folder and a link to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images/_delta_log").mkdir(parents=True)
    (tmp_path / "images/_delta_log/00000000000000000000.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    return tmp_path


SPELLINGS = [
    "{lake}/images",
    "./images",
    "{lake}/images/",
    "{lake}//images/.",
    "{lake}/other/../images",
    "{lake}/link",
    "file:{lake}/images",
    "file://{lake}/images/",
    "FILE://localhost{lake}/images",
    "{lake}/images/within",
    "./link/within",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", ["output__table", "quarantine__table", "output__checkpoint"])
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_nothing_is_written_into_the_source(lake: Path, spelling: str, key: str, mode: str) -> None:
    before = contents(lake)
    config = job(lake, mode=mode, **{key: spelling.format(lake=lake)})
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\].*source.table"):
        predict_table(config)
    if mode == "incremental":
        with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
            predict_stream(config)
    for again in (reset_job, lambda config: undo_run(config, "run")):
        with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
            again(config)
    assert contents(lake) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source__table": "{lake}/predictions/images"}, r"source.table .* lies within output.table"),
        ({"quarantine__table": "{lake}/predictions"}, r"output.table .* is quarantine.table"),
        ({"quarantine__table": "{lake}/predictions_runs"}, r"_runs table .* is quarantine.table"),
        ({"quarantine__table": "{lake}/predictions_tasks/bad"}, r"_tasks table .* holds quarantine.table"),
        ({"output__checkpoint": "{lake}/predictions/checkpoint"}, r"output.table .* holds the checkpoint"),
        ({"output__checkpoint": "{lake}"}, r"source.table .* lies within the checkpoint"),
        ({"source__table": "{lake}/predictions_runs"}, r"source.table .* is the output's _runs table"),
        (
            {
                "ingest": {
                    "source": {"path": "{lake}/files"},
                    "output": {"table": "{lake}/images"},
                    "thumbnails": {"table": "{lake}/predictions"},
                }
            },
            r"output.table .* is thumbnails.table",
        ),
    ],
)
def test_a_jobs_tables_and_folders_lie_apart(lake: Path, values: dict[str, Any], message: str) -> None:
    filled = json.loads(json.dumps(values).replace("{lake}", str(lake)))
    with pytest.raises(LakemillError, match=rf"^\[TABLES_OVERLAP\] .*{message}"):
        check_own(job(lake, **filled), None)


def test_places_beside_each_other_are_apart(lake: Path) -> None:
    check_own(
        job(lake, output__table=f"{lake}/images_predictions", quarantine__table=f"{lake}/images_quarantine"), None
    )
    check_own(job("s3://bucket/lake", output__checkpoint=f"{lake}/checkpoint"), None)


def test_the_catalogs_tables_are_where_the_catalog_says(lake: Path) -> None:
    places = {"lake.images": f"file:{lake}/images", "Lake.Images": f"file:{lake}/images"}
    config = job(lake, output__table="Lake.Images", output__checkpoint=f"{lake}/checkpoint")
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
        check_apart(predict_places(config), places.get)
    new = job(lake, output__table="new", output__checkpoint=f"{lake}/checkpoint", quarantine__table="New")
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
        check_apart(predict_places(new), lambda _: None)
    check_apart(predict_places(new.model_copy(update={"quarantine": job(lake).quarantine})), lambda _: None)


def test_a_stores_places_have_one_form() -> None:
    assert canonical("s3a://Bucket//lake/./images/") == canonical("s3://bucket/lake/images")
    assert canonical("s3://bucket/lake/images") != canonical("s3://bucket/Lake/images")


@pytest.mark.parametrize("table", ["{lake}/files", "{lake}/files/table", "{lake}"])
def test_an_ingest_writes_nothing_into_its_source(lake: Path, table: str) -> None:
    config = IngestConfig.load(source__path=f"{lake}/files", output__table=table.format(lake=lake))
    with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\] source.path"):
        check_apart(ingest_places(config))


@pytest.mark.parametrize(
    "name", ["../images", "/etc", "a/b", ".hidden", "..", "", " ", "a ", "a.", "x" * 129, "nämé", "a\nb", "digits.lock"]
)
def test_a_name_that_is_no_folders(lake: Path, name: str) -> None:
    for config in (
        lambda: job(lake, name=name),
        lambda: IngestConfig.load(name=name, source__path="a", output__table="b"),
    ):
        with pytest.raises(LakemillError, match=r"^\[CONFIG_INVALID\] .*'name': .*cannot name a job"):
            config()


@pytest.mark.parametrize("name", ["digits", "Digits 2026-11.v2", "a", "_", "x" * 128])
def test_a_name_that_is(lake: Path, name: str) -> None:
    assert job(lake, name=name).name == name


@pytest.mark.parametrize("table", ["lake/predictions", "lake/prédictions!", "cat.schema.table", "a/..", "a/.b.lock/"])
def test_a_job_without_a_name_has_one_that_is(lake: Path, table: str) -> None:
    assert job(lake, name=job_name(table)).name


def written(folder: Path, owner: str) -> Checkpoint:
    """Return a checkpoint as Spark leaves it after a batch."""
    checkpoint = Checkpoint(str(folder))
    checkpoint.claim({"job": owner})
    for name in ("metadata", "offsets/0", "commits/0", "offsets/.0.crc", ".metadata.crc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return checkpoint


def test_a_folder_with_other_things_is_no_checkpoint(lake: Path) -> None:
    folder = lake / "project"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    for mode in ("full", "incremental", "missing"):
        with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_NOT_OURS\] .*holds thesis.txt"):
            predict_table(job(lake, mode=mode, output__checkpoint=str(folder)))
    assert contents(folder) == {"thesis.txt": b"x"}
    assert not Path(f"{folder}.lock").exists()


def test_another_jobs_checkpoint_is_left_alone(lake: Path) -> None:
    written(lake / "progress", "first")
    before = contents(lake / "progress")
    with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_NOT_OURS\] .*the job 'first'"):
        reset_job(job(lake, name="second", output__checkpoint=f"{lake}/progress"))
    assert contents(lake / "progress") == before


def test_a_checkpoint_is_the_jobs_own_whole_or_damaged(lake: Path) -> None:
    checkpoint = written(lake / "progress", "first")
    checkpoint.check_own("first")
    (lake / "progress" / IDENTITY_FILE).write_text("")
    checkpoint.check_own("first")
    checkpoint.remove()
    assert not (lake / "progress").exists()
    assert list(lake.glob("progress*")) == []
    checkpoint.check_own("first")


def test_removing_a_checkpoint_deletes_only_its_own_files(lake: Path) -> None:
    checkpoint = written(lake / "progress", "first")
    (lake / "progress/notes").mkdir()
    (lake / "progress/notes/mine.txt").write_text("x")
    checkpoint.remove()
    assert contents(lake / "progress") == {"notes/mine.txt": b"x"}
    assert list(lake.glob("progress*")) == [lake / "progress"]
    with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_NOT_OURS\]"):
        checkpoint.check_own("first")


def test_a_removal_that_was_killed_is_ended_by_the_next(lake: Path) -> None:
    checkpoint = written(lake / "progress", "first")
    (lake / "progress").rename(lake / "progress~removed")  # killed right after its first step
    assert checkpoint.identity() is None
    assert checkpoint.last_batch() is None
    written(lake / "progress", "first").remove()
    assert list(lake.glob("progress*")) == []
