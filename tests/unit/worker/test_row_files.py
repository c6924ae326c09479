"""Which files a row may name by its path, and what becomes of one that it may not, or that is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lakemill import ImageStep, Pipeline
from lakemill.config.row_files import ROOTS_PROPERTY, RowLimits, recorded_roots, roots_property
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.files import NO_FILES, RowFiles, filesystem, local_name, read_bytes


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a folder with a file, beside another one."""
    for name in ("photos/a.png", "photos-private/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"123")
    return tmp_path


def code(files: RowFiles, path: object) -> str:
    with pytest.raises(RowError) as caught:
        files.read(str(path))
    return caught.value.code


def test_what_lies_below_a_root_is_read_however_it_is_written(lake: Path) -> None:
    files = RowFiles((str(lake / "photos"),))
    for path in (lake / "photos/a.png", f"file://{lake}/photos/a.png", f"file:{lake}/photos/../photos/a.png"):
        assert files.read(str(path)) == b"123"
    assert RowFiles((f"file://{lake}/photos/",)).read(f"{lake}/photos/a.png") == b"123"


def test_nothing_else_is_read(lake: Path) -> None:
    """Neither by dots, nor by a link, nor by a name that only begins alike, nor at another place."""
    files = RowFiles((str(lake / "photos"), "s3://bucket/images"))
    (lake / "photos/link").symlink_to(lake / "photos-private/b.png")
    (lake / "photos/folder").symlink_to(lake / "photos-private")
    for path in (
        "/etc/passwd",
        "file:///etc/passwd",
        lake / "photos-private/b.png",
        lake / "photos/../photos-private/b.png",
        lake / "photos/link",
        lake / "photos/folder/b.png",
        f"file+percent://{lake}/photos%2F..%2Fphotos-private/b.png",
        "s3://bucket/private/a.png",
        "s3://bucket/images/../private/a.png",
        "s3://other/images/a.png",
        "gs://bucket/images/a.png",
    ):
        assert code(files, path) == "PATH_NOT_ALLOWED", path
    assert code(NO_FILES, lake / "photos/a.png") == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket?endpoint_override=host:80&scheme=http/images/a.png",
        "s3://key:secret@bucket/images/a.png",
        "s3://bucket#x/images/a.png",
        "hdfs://user@host/images/a.png",
        "gs://bucket;x/images/a.png",
        "file://host/etc/passwd",
    ],
)
def test_a_user_options_or_an_endpoint_reach_no_filesystem(uri: str) -> None:
    """Not from a row, whatever the roots are, nor from a configuration; and the message does not repeat them."""
    assert code(RowFiles((uri.rpartition("/")[0], "/")), uri) in ("FILE_PATH", "PATH_NOT_ALLOWED")
    assert code(RowFiles(None), uri) == "FILE_PATH"
    with pytest.raises(ConfigError, match=r"\[SOURCE_SCHEME\]") as caught:
        filesystem(uri)
    assert "secret" not in str(caught.value)


def test_only_regular_files_are_read_and_none_waits_for_ever(lake: Path) -> None:
    os.mkfifo(lake / "photos/pipe")
    files = RowFiles(("/",), max_bytes=1000)
    assert code(files, lake / "photos/pipe") == "FILE_UNREADABLE"
    assert code(files, "/dev/zero") == "FILE_UNREADABLE"
    assert code(files, lake / "photos") == "FILE_PATH"
    assert code(files, lake / "photos/none.png") == "FILE_NOT_FOUND"
    assert code(files, "a\0b") == "FILE_PATH"
    assert files.read("/proc/self/mem") == b""  # it says that it has no bytes, and no more are read


def test_a_files_size_is_asked_before_it_is_read(lake: Path) -> None:
    with (lake / "photos/huge").open("wb") as file:
        file.truncate(2**40)
    assert code(RowFiles((str(lake),)), lake / "photos/huge") == "FILE_TOO_LARGE"
    with pytest.raises(RowError, match=r"\[FILE_TOO_LARGE\]"):
        read_bytes(str(lake / "photos/a.png"), 2)


def test_a_name_that_is_no_utf8_reads_back(lake: Path) -> None:
    raw = os.fsencode(lake / "photos") + b"/caf\xe9 100%.png"
    Path(os.fsdecode(raw)).write_bytes(b"4")
    name = local_name(os.fsdecode(raw))
    assert name.encode()
    assert name == f"file+percent://{lake}/photos/caf%E9%20100%25.png"
    assert RowFiles((str(lake / "photos"),)).read(name) == b"4"
    assert local_name("/a b/é%20.png") == "/a b/é%20.png"


def test_without_roots_in_the_configuration_those_that_ingest_recorded_count(lake: Path) -> None:
    first = roots_property([str(lake), "s3://bucket/a"], {})
    assert first is not None
    properties = {ROOTS_PROPERTY: first}
    assert recorded_roots(properties) == (str(lake), "s3://bucket/a")
    assert roots_property([str(lake)], properties) is None
    assert recorded_roots({ROOTS_PROPERTY: str(roots_property(["s3://b"], properties))})[-1] == "s3://b"
    assert RowLimits().files(properties).read(f"{lake}/photos/a.png") == b"123"
    assert RowLimits(allowed_roots=("s3://bucket",)).files(properties).roots == ("s3://bucket",)
    assert RowLimits().files({}).roots == ()
    assert recorded_roots({ROOTS_PROPERTY: "no json"}) == ()


def test_infer_opens_paths_below_the_roots_that_it_is_given(lake: Path) -> None:
    """And none without; a server that scores strangers' rows reads no file for them."""
    photo = lake / "photos/a.png"
    Image.new("L", (2, 1), 255).save(photo)
    pipeline = Pipeline((ImageStep(mode="L", size=(1, 1), output="image"),))
    data = {"content": [None], "path": [str(photo)]}
    with pytest.raises(RowError, match=r"\[PATH_NOT_ALLOWED\] row 0, read"):
        pipeline.infer(data)
    assert pipeline.infer(data, dataset="out", allowed_roots=[str(lake / "photos")])["out.image"] == [[[[1.0]]]]
