"""Images of one Delta table to images of another, read back with an independent reader."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Field
from PIL import Image

from lakemill.config.transform import TransformConfig
from lakemill.transform.job import TransformResult, transform_images
from lakemill_udfs.errors import ConfigError, RunError, TableError
from tests.both.on import On
from tests.grey_images import grey_images


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a table of six images in two labels, of which one does not decode; users' functions are importable."""
    monkeypatch.syspath_prepend(tmp_path)
    return grey_images(tmp_path)


@pytest.fixture
def transform(on: On, images: str, tmp_path: Path) -> Callable[..., TransformResult]:
    """Return a function that transforms the table with some options changed."""

    def run(**options: Any) -> TransformResult:
        values = {"source__table": images, "output__table": str(tmp_path / "lake/small"), "engine__name": on.name}
        return transform_images(TransformConfig.load(**(values | options)), on.session)

    return run


def read(table: Path) -> list[dict[str, Any]]:
    """Return a table's rows in the order of their first column, read without Spark."""
    return sorted(DeltaTable(table).to_pyarrow_table().to_pylist(), key=lambda row: str(next(iter(row.values()))))


@pytest.mark.seam
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


@pytest.mark.parametrize("name", ["_change_type", "__lakemill_row"])
def test_a_column_of_a_reserved_name_stops_before_anything_is_written(
    transform: Callable[..., TransformResult], images: str, tmp_path: Path, name: str
) -> None:
    DeltaTable(images).alter.add_columns([Field(name, "string")])
    with pytest.raises(ConfigError, match=rf"^\[COLUMN_RESERVED\].*'{name}'"):
        transform(transform={"grayscale": True})
    assert not (tmp_path / "lake/small").exists()


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
