"""Which files a source holds, what they are labelled, and into how many tasks they go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakemill.config.base import interval_seconds
from lakemill.config.ingest import FileSource, IngestConfig
from lakemill.engines.image_layout import FILE_BYTES, PIECES_PER_SLOT, piece_count
from lakemill.ingest.listing import index_labels, list_files
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import read_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files with awkward names."""
    for name in ("cat/a.png", "cat/b.JPG", "dog/deep/c d%20#.png", "dog/.hidden.png", ".git/e.png", "f.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"123")
    return tmp_path / "photos"


def names(folder: Path, **options: Any) -> list[str]:
    """Return the files that a source of this folder holds, relative to it."""
    files = list_files(FileSource(path=str(folder), **options))
    return [Path(path).relative_to(folder).as_posix() for path in files["path"]]


def test_folders_are_walked_and_dot_files_left_out(folder: Path) -> None:
    """Everything below the folder, in the order of the names, but nothing that begins with a dot."""
    assert names(folder) == ["cat/a.png", "cat/b.JPG", "dog/deep/c d%20#.png", "f.png"]
    assert names(folder, recursive=False) == ["f.png"]


def test_globs_match_names_or_paths_below_the_source(folder: Path) -> None:
    """A pattern with a slash is about the path, another one about the name; case counts."""
    assert names(folder, glob="*.JPG") == ["cat/b.JPG"]
    assert names(folder, glob=["*.JPG", "dog/*"]) == ["cat/b.JPG", "dog/deep/c d%20#.png"]


def test_sources_may_overlap_and_be_single_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is there once, by its absolute path, however it was named."""
    monkeypatch.chdir(folder.parent)
    source = FileSource(path=["photos/cat", f"file://{folder}/cat/a.png", f"{folder}/f.png"])
    assert list_files(source)["path"].to_list() == [f"{folder}/{name}" for name in ("cat/a.png", "cat/b.JPG", "f.png")]


def test_a_file_is_told_by_length_and_time(folder: Path) -> None:
    """Length in bytes, and the modification time in microseconds, UTC."""
    row = list_files(FileSource(path=str(folder / "f.png"))).row(0, named=True)
    assert row["length"] == 3
    assert int(row["modification_time"].timestamp() * 1e6) == (folder / "f.png").stat().st_mtime_ns // 1000


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("parent", ["cat", "cat", "deep", "photos"]),
        ({"pattern": r"/(cat|dog)/"}, ["cat", "cat", "dog", None]),
        ({"pattern": r"(\w+)/(?P<label>[ab])\."}, ["a", "b", None, None]),
        (None, [None] * 4),
    ],
)
def test_labels(folder: Path, label: Any, expected: list[str | None]) -> None:
    """From the folder, from a group of an expression, or none."""
    assert list_files(FileSource(path=str(folder), label=label))["label"].to_list() == expected


def test_label_index_goes_on_where_the_table_stopped() -> None:
    """Known labels keep their index, new ones follow in order, no label has no index."""
    known = pl.DataFrame({"label": ["m", "m", None], "label_index": pl.Series([4, 4, None], dtype=pl.Int32)})
    files = pl.DataFrame({"label": ["z", None, "m", "a", "z"]})
    assert index_labels(files, known)["label_index"].to_list() == [6, None, 4, 5, 6]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    """With the path as it was written."""
    with pytest.raises(ConfigError, match=r"\[SOURCE_NOT_FOUND\].*'no/such/folder'"):
        list_files(FileSource(path="no/such/folder"))
    with pytest.raises(ConfigError, match=r"\[SOURCE_SCHEME\].*'ftp://'"):
        list_files(FileSource(path="ftp://host/folder"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trigger", "sometimes", "write once, or an interval"),
        ("source__label", {"pattern": "("}, "no regular expression"),
        ("source__label", {"pattern": "cat"}, "has no group"),
        ("limits", {"reference_above": "2GiB"}, "reference_above"),
        ("limits", {"max_pixel": 5}, "did you mean 'max_pixels'"),
        ("output__partition_by", ["content"], "partition_by"),
    ],
)
def test_a_wrong_value_says_what_is_right(key: str, value: Any, message: str) -> None:
    """One line that names the key."""
    with pytest.raises(ConfigError, match=r"\[CONFIG_INVALID\]") as caught:
        IngestConfig.load(source__path="x", output__table="a/b", **{key: value})
    assert message in str(caught.value)


def test_intervals_are_read_in_seconds() -> None:
    """As Spark's triggers are written."""
    texts = ("once", "30 seconds", "1 minute", "2 hours")
    assert [interval_seconds(text, once="once") for text in texts] == [None, 30, 60, 7200]


@given(total=st.integers(0, 2**44), files=st.integers(1, 10**7), slots=st.integers(1, 512))
def test_tasks_are_neither_tiny_nor_huge(total: int, files: int, slots: int) -> None:
    """Every task has a file's worth of bytes at most, and no set is cut into more than it needs."""
    tasks = piece_count(total, files, slots)
    assert tasks >= 1
    assert total / tasks <= FILE_BYTES
    assert tasks <= max(1, slots * PIECES_PER_SLOT, total // FILE_BYTES + 1)


def test_a_middling_set_keeps_every_core_busy() -> None:
    """Four tasks a core from half a gigabyte on, one for a handful of digits."""
    assert piece_count(2**30, 10_000, 2) == 8
    assert piece_count(2**20, 100, 2) == 1


def test_folders_are_gone_into_once_however_many_links_lead_there(folder: Path) -> None:
    """A link to the parent made 1,311 rows of 32 files; a folder elsewhere that is linked to is part of the source."""
    before = names(folder)
    (folder / "cat/up").symlink_to(folder)
    (folder / "a-link-that-sorts-first").symlink_to(folder / "dog")
    (folder / "gone").symlink_to(folder / "nowhere")
    assert names(folder) == before
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "z.png").write_bytes(b"1")
    (folder / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    assert names(folder) == [*before, "more/z.png"]


def test_a_name_that_is_no_utf8_stops_nothing(folder: Path) -> None:
    """It is stored so that it reads back."""
    raw = os.fsdecode(os.fsencode(folder) + b"/cat/\xff.png")
    Path(raw).write_bytes(b"12")
    files = list_files(FileSource(path=str(folder), label="parent"))
    [row] = files.filter(pl.col("path").str.starts_with("file+percent:")).to_dicts()
    assert (row["length"], row["label"]) == (2, "cat")
    assert read_bytes(row["path"]) == b"12"


def test_pipes_and_devices_are_no_files(folder: Path) -> None:
    before = names(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    assert names(folder) == before
