"""Files become rows; what was written is read back with an independent reader."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from PIL import Image

from lakemill.config.ingest import IngestConfig
from lakemill.config.transform import TransformConfig
from lakemill.ingest.job import IngestResult, ingest_images
from lakemill.transform.job import transform_images
from tests.both.on import On
from tests.fuzz.image_mutants import mutants
from tests.photos import image, operations, put, rows

COLUMNS = [
    "path",
    "length",
    "modification_time",
    "label",
    "label_index",
    "width",
    "height",
    "mode",
    "orientation",
    "format",
    "sha256",
    "content",
]

Ingest = Callable[..., IngestResult]


@pytest.fixture
def ingest(on: On, tmp_path: Path) -> Ingest:
    """Return a function that ingests ``src`` into ``lake/images`` with some options changed."""

    def run(progress: Callable[[str], None] | None = None, **options: Any) -> IngestResult:
        values = {
            "source": {"path": str(tmp_path / "src"), "label": "parent"},
            "output__table": str(tmp_path / "lake/images"),
            "engine__name": on.name,
        } | options
        return ingest_images(IngestConfig.load(**values), on.session, progress=progress)

    return run


@pytest.mark.seam
def test_every_format_becomes_a_row_and_every_other_file_a_reason(ingest: Ingest, tmp_path: Path) -> None:
    """One run over all formats, EXIF and broken files."""
    exif = Image.Exif()
    exif[0x0112] = 8
    good = {
        "cat/a.jpg": image(1, "JPEG", exif=exif),
        "cat/b.png": image(2),
        "dog/c.gif": image(3, "GIF"),
        "dog/d.bmp": image(4, "BMP"),
        "dog/e.tiff": image(5, "TIFF"),
        "f.webp": image(6, "WEBP"),
    }
    bad = {"cat/empty.png": b"", "cat/text.png": b"no image", "dog/cut.png": image(7)[:-20]}
    put(tmp_path, good | bad)
    result = ingest()
    assert (result.listed, result.added, result.rejected, result.bytes) == (9, 6, 3, sum(map(len, good.values())))
    table = DeltaTable(tmp_path / "lake/images")
    assert [field.name for field in table.schema().fields] == COLUMNS
    assert table.metadata().configuration["delta.enableChangeDataFeed"] == "true"
    found = rows(tmp_path / "lake/images")
    assert {name: row["content"] for name, row in found.items()} == good
    assert [found[name]["format"] for name in sorted(found)] == ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]
    assert {name: (row["label"], row["label_index"]) for name, row in found.items()} == {
        "cat/a.jpg": ("cat", 0),
        "cat/b.png": ("cat", 0),
        "dog/c.gif": ("dog", 1),
        "dog/d.bmp": ("dog", 1),
        "dog/e.tiff": ("dog", 1),
        "f.webp": ("src", 2),
    }
    row, file = found["cat/a.jpg"], tmp_path / "src/cat/a.jpg"
    assert (row["width"], row["height"], row["mode"], row["orientation"]) == (12, 8, "RGB", 8)
    assert row["length"] == file.stat().st_size
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert int(row["modification_time"].timestamp() * 1e6) == file.stat().st_mtime_ns // 1000
    assert found["cat/b.png"]["orientation"] is None
    assert {name: row["code"] for name, row in rows(tmp_path / "lake/images_quarantine").items()} == {
        "cat/empty.png": "FILE_EMPTY",
        "cat/text.png": "IMAGE_UNKNOWN_FORMAT",
        "dog/cut.png": "IMAGE_TRUNCATED",
    }


@pytest.mark.seam
def test_a_second_run_does_what_changed_and_nothing_else(ingest: Ingest, tmp_path: Path) -> None:
    """New files are one append, changed ones one merge, everything else stays as it is."""
    put(
        tmp_path,
        {
            "m/same.png": image(1),
            "m/changes.png": image(2),
            "m/breaks.png": image(3),
            "m/goes.png": image(4),
            "m/mends.png": b"broken",
        },
    )
    ingest()
    again = ingest()
    assert (again.unchanged, again.added, again.replaced, again.rejected, again.version) == (5, 0, 0, 0, 1)
    assert ingest(source__glob="*.nothing").listed == 0

    put(
        tmp_path, {"a/new.png": image(5), "m/changes.png": image(6), "m/breaks.png": b"broken", "m/mends.png": image(7)}
    )
    (tmp_path / "src/m/goes.png").unlink()
    result = ingest()
    assert (result.added, result.replaced, result.rejected, result.unchanged) == (2, 1, 1, 1)
    found = rows(tmp_path / "lake/images")
    assert {name: row["content"] for name, row in found.items()} == {
        "m/same.png": image(1),
        "m/changes.png": image(6),
        "m/breaks.png": image(3),
        "m/goes.png": image(4),
        "m/mends.png": image(7),
        "a/new.png": image(5),
    }
    assert (found["m/same.png"]["label_index"], found["a/new.png"]["label_index"]) == (0, 1)
    assert list(rows(tmp_path / "lake/images_quarantine")) == ["m/breaks.png"]
    assert operations(tmp_path / "lake/images") == ["CREATE TABLE", "WRITE", "WRITE", "MERGE"]
    assert ingest().version == result.version


def test_limits_reject_or_refer_and_may_be_raised_later(ingest: Ingest, tmp_path: Path) -> None:
    """A file that was too large comes in once the limit allows it; above the reference limit its bytes stay away."""
    large = image(3, "BMP", size=(30, 30))
    put(tmp_path, {"small.png": image(1), "wide.png": image(2, size=(40, 40)), "large.bmp": large})
    limits = {"max_bytes": len(large) * 2, "max_pixels": 900, "reference_above": 1000}
    ingest(limits=limits | {"max_bytes": 2000})
    codes = {name: row["code"] for name, row in rows(tmp_path / "lake/images_quarantine").items()}
    assert codes == {"wide.png": "FILE_TOO_LARGE", "large.bmp": "FILE_TOO_LARGE"}
    assert ingest(limits=limits | {"max_bytes": 2000}).version == 1
    second = ingest(limits=limits)
    assert (second.added, second.unchanged) == (1, 2)
    row = rows(tmp_path / "lake/images")["large.bmp"]
    assert row["content"] is None
    assert (row["width"], row["length"], row["sha256"]) == (30, len(large), hashlib.sha256(large).hexdigest())
    codes = {name: row["code"] for name, row in rows(tmp_path / "lake/images_quarantine").items()}
    assert codes == {"wide.png": "IMAGE_TOO_MANY_PIXELS"}


def test_no_matching_file_is_no_error_and_makes_no_table(ingest: Ingest, tmp_path: Path) -> None:
    """A message and zeros."""
    put(tmp_path, {"a.png": image()})
    lines: list[str] = []
    result = ingest(lines.append, source__glob="*.jpg")
    assert (result.listed, result.added, result.version) == (0, 0, None)
    assert "No file matches" in " ".join(lines)
    assert not (tmp_path / "lake").exists()


def test_thumbnails_follow_the_table(ingest: Ingest, tmp_path: Path) -> None:
    """One for each image, upright and within the size; a replaced image gets a new one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = bytearray(image(3, size=(64, 64)))
    damaged[200:240] = bytes(40)
    sideways = image(1, "JPEG", size=(200, 100), exif=exif)
    put(tmp_path, {"a.jpg": sideways, "b.png": image(2), "damaged.png": bytes(damaged)})
    thumbnails = {"table": str(tmp_path / "lake/thumbnails"), "size": 32}
    options: dict[str, Any] = {"thumbnails": thumbnails, "limits": {"reference_above": 500}}
    ingest(**options)
    found = rows(tmp_path / "lake/thumbnails")
    assert {name: (row["width"], row["height"]) for name, row in found.items()} == {
        "a.jpg": (16, 32),
        "b.png": (12, 8),
        "damaged.png": (None, None),
    }
    assert Image.open(io.BytesIO(found["a.jpg"]["thumbnail"])).size == (16, 32)
    put(tmp_path, {"b.png": image(9, size=(64, 64)), "c.png": image(4)})
    ingest(**options)
    after = rows(tmp_path / "lake/thumbnails")
    assert [after[name]["width"] for name in ("a.jpg", "b.png", "c.png", "damaged.png")] == [16, 32, 12, None]
    assert after["a.jpg"] == found["a.jpg"]
    assert DeltaTable(tmp_path / "lake/thumbnails").version() == 2


def test_hostile_files_stop_neither_ingest_nor_thumbnails_nor_transform(ingest: Ingest, on: On, tmp_path: Path) -> None:
    """Each is a row of its own, or of the quarantine, by a name that reads back."""
    put(
        tmp_path, {f"{number:03}.bin": data for number, data in enumerate(mutants(60, seed=3))} | {"good.png": image(1)}
    )
    strange = os.fsdecode(os.fsencode(tmp_path / "src") + b"/caf\xe9.png")
    Path(strange).write_bytes(image(2))
    (tmp_path / "src/up").symlink_to(tmp_path / "src")
    table = str(tmp_path / "lake/images")
    result = ingest(thumbnails={"table": str(tmp_path / "lake/thumbnails")}, limits={"reference_above": 300})
    assert result.listed == 62 == result.added + result.rejected
    found = {row["path"]: row for row in DeltaTable(table).to_pyarrow_table().to_pylist()}
    name = f"file+percent://{tmp_path}/src/caf%E9.png"
    assert found[name]["width"] == 12
    assert found[name]["content"] is None
    small = {
        row["path"]: row["width"] for row in DeltaTable(tmp_path / "lake/thumbnails").to_pyarrow_table().to_pylist()
    }
    assert small.keys() == found.keys()
    assert small[name] == 12
    assert ingest(limits={"reference_above": 300}).unchanged == 62
    config = TransformConfig.load(
        source__table=table,
        output__table=str(tmp_path / "lake/grey"),
        transform={"size": [4, 4]},
        engine__name=on.name,
    )
    done = transform_images(config, on.session)
    assert done.transformed + done.failed == done.rows == len(found)
    assert name in DeltaTable(tmp_path / "lake/grey").to_pyarrow_table(columns=["path"])["path"].to_pylist()


def test_an_interval_goes_on_until_it_is_stopped(ingest: Ingest, tmp_path: Path) -> None:
    """Files that arrive in between come in; SIGTERM lets the running look end and returns what was done."""
    put(tmp_path, {"a.png": image(1)})
    runs: list[str] = []

    def watch(line: str) -> None:
        if line.startswith("Listed"):
            runs.append(line)
            put(tmp_path, {f"b{len(runs)}.png": image(len(runs))})
            if len(runs) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    result = ingest(watch, trigger="1 second")
    assert result.added == 3
    assert len(rows(tmp_path / "lake/images", "length")) == 3


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from lakemill.ingest.job import ingest_images
from lakemill.config.ingest import IngestConfig

source, table, moment, engine = sys.argv[1:]
kill = lambda: os.killpg(0, signal.SIGKILL)

def when_writing():
    while not list(Path(table).glob("*.parquet")):
        time.sleep(0.01)
    kill()

def progress(line):
    if moment == "writing" and line.startswith("Reading"):
        threading.Thread(target=when_writing, daemon=True).start()
    elif line.startswith(moment):
        kill()

ingest_images(IngestConfig.load(source__path=source, output__table=table, engine__name=engine), progress=progress)
"""


def kill_ingest(folder: Path, moment: str, engine: str) -> None:
    """Ingest in a process of its own, which with its JVM and workers is killed at a moment."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder / "src"), str(folder / "lake/images"), moment, engine],
        start_new_session=True,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr


def test_a_kill_at_any_time_loses_and_doubles_nothing(ingest: Ingest, on: On, tmp_path: Path) -> None:
    """While files are written, and between the commits; the next run mends it all."""
    files = {f"{number % 3}/{number:02}.bmp": image(number, "BMP", size=(400, 400)) for number in range(40)}
    put(tmp_path, files | {"0/broken.png": b"broken"})
    kill_ingest(tmp_path, "writing", on.name)
    assert ingest().added == 40

    changed = {"0/00.bmp": image(100), "1/broken.png": b"broken too", "2/new.png": image(101)}
    put(tmp_path, changed)
    kill_ingest(tmp_path, "Committed the new", on.name)
    assert operations(tmp_path / "lake/images")[-1] == "WRITE"
    repaired = ingest()
    assert (repaired.added, repaired.replaced, repaired.rejected) == (0, 1, 1)
    found = rows(tmp_path / "lake/images", "content")
    assert {name: row["content"] for name, row in found.items()} == files | {
        "0/00.bmp": changed["0/00.bmp"],
        "2/new.png": changed["2/new.png"],
    }
    assert sorted(rows(tmp_path / "lake/images_quarantine")) == ["0/broken.png", "1/broken.png"]
