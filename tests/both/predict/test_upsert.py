"""Rows that change in the source: stopped at, or scored again, from the change feed or by a column."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, PredictConfig
from tests.both.on import On
from tests.lake import add_images, digits_job, onnx_classifier, png

FEED = "delta.enableChangeDataFeed"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Yield a folder with 6 images, in a table that records its changes, and a model."""
    add_images(tmp_path / "images", 0, 6, properties={FEED: "true"})
    onnx_classifier(tmp_path / "model.onnx")
    return tmp_path


def upsert(lake: Path, *overrides: str) -> PredictConfig:
    return digits_job(lake, "source.changes=upsert", *overrides)


def predictions(lake: Path) -> dict[int, dict[str, Any]]:
    """Read the predictions with the independent reader, by number of the image."""
    rows = DeltaTable(f"{lake}/predictions").to_pyarrow_table().to_pylist()
    found = {int(row["path"][4:8]): row for row in rows}
    assert len(found) == len(rows)
    return found


def images(lake: Path) -> DeltaTable:
    return DeltaTable(lake / "images")


def repaint(lake: Path, where: str, seed: int) -> None:
    """Give images other pixels."""
    images(lake).update(predicate=where, updates={"content": f"X'{png(seed).hex()}'", "label": "'new'"})


@pytest.mark.seam
def test_changes_of_the_feed_replace_predictions(lake: Path, on: On) -> None:
    config = upsert(lake, "source.where=number < 100")
    assert on.predict(config).rows == 6
    before = predictions(lake)
    repaint(lake, "number IN (1, 5)", 12)  # version 1
    repaint(lake, "number = 1", 11)  # 2: only the last state counts
    images(lake).delete("number = 2")  # 3
    add_images(lake / "images", 6, 1)  # 4
    images(lake).delete("number = 3")  # 5: and it comes back
    add_images(lake / "images", 3, 1)  # 6
    images(lake).update(predicate="number = 4", updates={"number": "100"})  # 7: leaves the predicate
    result = on.predict(config)
    assert (result.rows, result.batches, result.source_version) == (4, 1, 7)
    after = predictions(lake)
    assert sorted(after) == [0, 1, 3, 5, 6]
    versions = {number: row["metadata"]["source_version"] for number, row in after.items()}
    assert versions == {0: 0, 5: 1, 1: 2, 3: 6, 6: 4}
    assert after[1]["label"] == "new"
    assert after[1]["out"] != before[1]["out"]
    assert after[0] == before[0]


def test_optimize_of_the_source_scores_nothing_again_and_predictions_may_be_kept(lake: Path, on: On) -> None:
    config = upsert(lake, "source.deleted=keep")
    on.predict(config)
    add_images(lake / "images", 6, 1)
    images(lake).optimize.z_order(["number"])
    assert on.predict(config).rows == 1
    images(lake).delete("number = 2")
    assert on.predict(config).rows == 0
    assert len(predictions(lake)) == 7


def test_a_lost_checkpoint_misses_no_change_and_doubles_nothing(lake: Path, on: On) -> None:
    on.predict(upsert(lake))
    shutil.rmtree(lake / "predictions_checkpoint")
    repaint(lake, "number = 1", 12)
    images(lake).delete("number = 2")
    on.predict(upsert(lake))
    rows = predictions(lake)
    assert sorted(rows) == [0, 1, 3, 4, 5]
    assert rows[1]["label"] == "new"


def test_a_column_that_changes_takes_the_place_of_the_feed(lake: Path, on: On) -> None:
    config = upsert(lake, "source.change_column=number")
    assert on.predict(config).rows == 6
    images(lake).update(predicate="number = 1", updates={"number": "77"})
    images(lake).delete("number = 2")
    add_images(lake / "images", 6, 1)
    images(lake).optimize.compact()
    result = on.predict(config)
    assert result.rows == 2
    rows = predictions(lake)
    assert sorted(rows) == [0, 1, 3, 4, 5, 6]
    assert (rows[1]["number"], rows[1]["metadata"]["source_version"]) == (77, 4)
    assert on.predict(config).batches == 0
    shutil.rmtree(lake / "predictions_checkpoint")
    assert on.predict(config).rows == 0


@pytest.mark.seam
def test_append_stops_at_changed_rows_and_not_at_optimize(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    add_images(lake / "images", 6, 1)
    images(lake).optimize.z_order(["number"])
    assert on.predict(digits_job(lake)).rows == 1
    images(lake).optimize.compact()
    assert on.predict(digits_job(lake)).batches == 0
    # One MERGE that changes a row and adds one: neither is passed over.
    rows = pa.table({"path": ["img/0001.png", "img/0009.png"]})
    merged = images(lake).merge(rows, "t.path = s.path", source_alias="s", target_alias="t")
    merged.when_matched_update({"label": "'new'"}).when_not_matched_insert({"path": "s.path"}).execute()
    with pytest.raises(LakemillError, match=r"^\[SOURCE_CHANGED\].*changes: upsert"):
        on.predict(digits_job(lake))
    assert len(predictions(lake)) == 7


def test_files_that_were_vacuumed_unseen_stop_the_run(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    add_images(lake / "images", 6, 1)
    images(lake).optimize.compact()
    parts = set((lake / "images").glob("*.parquet"))
    for file in parts - {Path(uri) for uri in DeltaTable(f"{lake}/images").file_uris()}:  # as VACUUM after 7 days
        file.unlink()
    with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\].*mode: missing"):
        on.predict(digits_job(lake))
    assert on.predict(digits_job(lake, mode="missing")).rows == 1
    assert len(predictions(lake)) == 7


def test_versions_that_left_the_log_unseen_stop_the_run(lake: Path, on: On) -> None:
    on.predict(digits_job(lake))
    for number in (6, 7, 8):
        add_images(lake / "images", number, 1)
    DeltaTable(f"{lake}/images").create_checkpoint()
    for version in (0, 1, 2):  # as Delta's own clean-up does after 30 days
        (lake / f"images/_delta_log/{version:020}.json").unlink()
    with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\].*mode: missing"):
        on.predict(digits_job(lake))
    assert on.predict(digits_job(lake, mode="missing")).rows == 3
    assert on.predict(digits_job(lake)).rows == 0
    assert sorted(predictions(lake)) == list(range(9))


def test_a_feed_that_is_off_or_came_too_late_is_said(lake: Path, on: On) -> None:
    def feed(value: str) -> None:
        images(lake).alter.set_table_properties({FEED: value})

    on.predict(upsert(lake))
    with pytest.raises(LakemillError, match=r"^\[CHECKPOINT_OTHER_JOB\].*changes"):
        on.predict(digits_job(lake))
    feed("false")
    with pytest.raises(LakemillError, match=r"^\[FEED_DISABLED\].*delta.enableChangeDataFeed = true"):
        on.predict(upsert(lake))
    repaint(lake, "number = 1", 12)
    feed("true")
    if on.name == "spark":
        with pytest.raises(LakemillError, match=r"^\[SOURCE_VERSIONS_GONE\]"):
            on.predict(upsert(lake))
    else:  # it reads the files that the commit replaced, for which it needs no feed
        assert on.predict(upsert(lake)).rows == 6
        assert predictions(lake)[1]["label"] == "new"
    assert len(predictions(lake)) == 6
