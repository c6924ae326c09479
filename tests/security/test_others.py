"""What others on the machine can do: neither read what a run keeps, nor put something where a run looks for code."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import write_deltalake

from lakemill import SetupError, predict_table
from lakemill.engines.spark.class_archive import class_archive
from lakemill.engines.spark.delta_jars import cache_folder
from lakemill.pipelines.resolving import resolve
from lakemill.predict import locks
from lakemill.predict.progress import checkpoint_of
from lakemill_udfs.models import files
from lakemill_udfs.models.files import keep_download, locate
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.own_files import own_folder
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep
from tests.lake import digits_job, image_rows, onnx_classifier


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def model(path: Path) -> ModelSpec:
    """Return a model as a worker gets it that has to fetch it from a store."""
    spec = resolve(Pipeline((ModelStep(str(path)),))).models[0]
    return replace(spec, location=path.as_uri())


def test_a_cache_that_is_open_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    for folder, use in (
        (tmp_path / "lakemill", cache_folder),
        (tmp_path / "lakemill", lambda: class_archive("java 17")),
        (tmp_path / f"lakemill-models-{os.getuid()}", lambda: locate(model(onnx_classifier(tmp_path / "m.onnx")))),
    ):
        folder.mkdir(exist_ok=True)
        for open_mode in (0o770, 0o707, 0o777):
            folder.chmod(open_mode)
            with pytest.raises(SetupError, match=r"^\[CACHE_NOT_OURS\]"):
                use()
        folder.chmod(0o755)
        use()
        folder.chmod(0o700)
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SetupError, match=r"^\[CACHE_NOT_OURS\]"):
            use()
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder(tmp_path / "cache")
    if (user := os.getuid()) == 0:
        os.chown(tmp_path / "cache", 12345, 12345)
    else:  # only root can give a folder away
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(SetupError, match=r"^\[CACHE_NOT_OURS\]"):
        own_folder(tmp_path / "cache")


def test_what_a_run_keeps_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    before = os.umask(0)
    try:
        write_deltalake(tmp_path / "images", image_rows(0, 2))
        onnx_classifier(tmp_path / "model.onnx")
        job = digits_job(tmp_path, "engine.name=local")
        predict_table(job)
        with locks.hold(job, print):
            assert mode(Path(f"{checkpoint_of(job).location}.lock")) == "0o600"
        fetched = locate(model(tmp_path / "model.onnx")).path
    finally:
        os.umask(before)
    assert mode(Path(checkpoint_of(job).location) / "lakemill.json") == "0o600"
    assert mode(fetched.parents[1]) == "0o700"


def test_fetched_models_are_one_bounded_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow fetched stayed in a folder a process, for ever."""
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))

    def fetch(room: Path, number: float) -> Path:
        return onnx_classifier(room / "model.onnx", bias=number)

    first = keep_download(lambda room: fetch(room, 0.0))
    assert keep_download(lambda room: fetch(room, 0.0)) == first
    cache = first.parents[1]
    assert [entry.name for entry in cache.iterdir()] == [first.parent.name]
    for number in range(1, 12):
        kept = keep_download(lambda room, number=number: fetch(room, number))  # type: ignore[misc]  # mypy: a default
        os.utime(kept.parent, (1e9 + number, 1e9 + number))  # used long ago
    keep_download(lambda room: fetch(room, 99.0))
    assert len([*cache.iterdir()]) <= files.KEPT_COPIES + 1
    assert first.exists(), "it was used within a day"
