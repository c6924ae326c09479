"""Images of one Delta table to images of another, read back without Spark."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from PIL import Image

from jobs import transform_images as job
from lakemill.cli.app import guarded, run
from lakemill.config.transform import TransformConfig
from lakemill.transform.job import TransformResult, transform_images
from lakemill.transform.sample import sample, write_sample
from lakemill_udfs.errors import ConfigError, RunError, TableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FUNCTIONS = """
import io
import pandas as pd
from PIL import Image, ImageOps

def invert(image):
    return ImageOps.invert(image)

def brightest(frame):
    means = [sum(Image.open(io.BytesIO(content)).convert("L").histogram()[128:]) for content in frame["content"]]
    return pd.DataFrame({"label": frame["label"].iloc[:1], "images": [len(frame)], "bright": [max(means)]})

def fail(frame):
    raise ValueError("secret")
"""


def grey(value: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return one shade of grey as a PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a table of six images in two labels, of which one does not decode; users' functions are importable."""
    (tmp_path / "my_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    table = str(tmp_path / "lake/images")
    rows = [(f"/photos/{number}.png", "ab"[number % 2], 40, 30, bytearray(grey(number * 40))) for number in range(6)]
    rows[5][-1][43:53] = bytes(10)
    schema = "path string, label string, width int, height int, content binary"
    spark.createDataFrame(rows, schema).write.format("delta").save(table)
    return table


@pytest.fixture
def transform(spark: SparkSession, images: str, tmp_path: Path) -> Callable[..., TransformResult]:
    """Return a function that transforms the table with some options changed."""

    def run(**options: Any) -> TransformResult:
        values = {"source__table": images, "output__table": str(tmp_path / "lake/small")} | options
        return transform_images(TransformConfig.load(**values), spark)

    return run


def read(table: Path) -> list[dict[str, Any]]:
    """Return a table's rows in the order of their first column, read without Spark."""
    return sorted(DeltaTable(table).to_pyarrow_table().to_pylist(), key=lambda row: str(next(iter(row.values()))))


def test_rows_are_transformed_in_one_commit_and_failures_kept(
    transform: Callable[..., TransformResult], tmp_path: Path
) -> None:
    """Other columns ride along; the damaged image is in the quarantine; a second run replaces the first."""
    result = transform(
        transform={"grayscale": True, "size": [6, 8], "format": "JPEG", "function": "my_functions:invert"}
    )
    assert (result.rows, result.transformed, result.failed) == (6, 5, 1)
    found = read(tmp_path / "lake/small")
    assert [(row["path"], row["label"], row["width"], row["height"]) for row in found] == [
        (f"/photos/{number}.png", "ab"[number % 2], 8, 6) for number in range(5)
    ]
    pixels = [Image.open(io.BytesIO(row["content"])) for row in found]
    assert {(image.format, image.mode, image.size) for image in pixels} == {("JPEG", "L", (8, 6))}
    assert [image.getpixel((3, 3)) for image in pixels] == pytest.approx([255, 215, 175, 135, 95], abs=2)
    [failed] = read(tmp_path / "lake/small_quarantine")
    assert (failed["path"], failed["code"]) == ("/photos/5.png", "IMAGE_DECODE")
    assert DeltaTable(tmp_path / "lake/small").version() == result.version

    again = transform(source__where="label = 'a'", transform={"crop": [10, 10]})
    assert (again.rows, again.transformed, again.failed, again.version) == (3, 3, 0, result.version + 1)
    assert {row["label"] for row in read(tmp_path / "lake/small")} == {"a"}
    assert read(tmp_path / "lake/small_quarantine") == []


def test_groups_go_through_a_pandas_function(transform: Callable[..., TransformResult], tmp_path: Path) -> None:
    """Whole groups, with a result of another shape; a group that fails fails the run and leaves the table as it was."""
    columns = "label string, images long, bright long"
    options = {"group_by": ["label"], "source__where": "path <> '/photos/5.png'"}
    result = transform(transform={"function": "my_functions:brightest"}, output__columns=columns, **options)
    assert (result.rows, result.transformed) == (5, 2)
    assert read(tmp_path / "lake/small") == [
        {"label": "a", "images": 3, "bright": 1200},
        {"label": "b", "images": 2, "bright": 0},
    ]
    with pytest.raises(RunError, match=r"\[FUNCTION_FAILED\] my_functions:fail raised ValueError") as caught:
        transform(transform={"function": "my_functions:fail"}, output__columns=columns, **options)
    assert "secret" not in str(caught.value)
    assert DeltaTable(tmp_path / "lake/small").version() == result.version


def test_a_sample_is_made_on_the_driver_and_writes_one_picture(
    spark: SparkSession, images: str, tmp_path: Path
) -> None:
    """Before and after side by side, failures with their reason; no table is made."""
    config = TransformConfig.load(
        name="look", source__table=images, output__table=str(tmp_path / "lake/small"), transform={"size": [6, 8]}
    )
    samples = {one.path: one for one in sample(config, 10, spark)}
    assert len(samples) == 6
    good, bad = samples["/photos/0.png"], samples["/photos/5.png"]
    assert good.before is not None
    assert good.after is not None
    assert (good.before.size, good.after.size, good.error) == ((40, 30), (8, 6), None)
    assert bad.after is None
    assert "[IMAGE_DECODE]" in str(bad.error)
    sheet = write_sample(config, 2, spark, tmp_path)
    assert sheet == tmp_path / "look_sample.png"
    assert Image.open(sheet).width > 2 * 256
    assert not (tmp_path / "lake/small").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source__table": "lake/nothing"}, TableError, "TABLE_NOT_FOUND"),
        ({"source__where": "colour = 1"}, ConfigError, "WHERE_INVALID"),
        ({"transform": {"function": "my_functions:nothing"}}, ConfigError, "FUNCTION_NOT_FOUND"),
        ({"transform": {"function": "my_functions:invert"}, "group_by": ["colour"]}, TableError, "COLUMN_MISSING"),
    ],
)
def test_mistakes_stop_before_anything_is_written(
    transform: Callable[..., TransformResult],
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """With a code of their own."""
    with pytest.raises(error, match=message):
        transform(**options)
    assert not (tmp_path / "lake/small").exists()


def test_the_job_prints_one_json_object(
    images: str,
    spark: SparkSession,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """jobs/transform_images.py with the repository's own configuration, and its sample."""
    config = str(Path("conf/transform_images.yaml").absolute())
    arguments = [
        "--config",
        config,
        "--set",
        f"source.table={images}",
        "--set",
        "source.where=null",
        "--set",
        f"output.table={tmp_path}/lake/small",
    ]
    assert job.main([*arguments, "--json"], spark) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["rows"], facts["transformed"], facts["failed"]) == (6, 5, 1)
    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: run(["transform", *arguments, "--sample", "1"])) == 0
    assert (tmp_path / "small_photos_sample.png").exists()
