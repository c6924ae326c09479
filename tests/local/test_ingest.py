"""Ingest and transform on the local engine: the tests of their meaning, which Spark's suite runs too, without Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.config.ingest import IngestConfig
from lakemill.config.transform import TransformConfig
from lakemill.ingest.job import IngestResult, ingest_images
from lakemill.transform.job import TransformResult, transform_images
from lakemill_udfs.errors import SetupError
from tests.spark.ingest.test_ingest import (  # noqa: F401 -- collected here too, with this module's fixtures
    Ingest,
    put,
    rows,
    test_a_kill_at_any_time_loses_and_doubles_nothing,
    test_a_second_run_does_what_changed_and_nothing_else,
    test_an_interval_goes_on_until_it_is_stopped,
    test_every_format_becomes_a_row_and_every_other_file_a_reason,
    test_limits_reject_or_refer_and_may_be_raised_later,
    test_no_matching_file_is_no_error_and_makes_no_table,
    test_thumbnails_follow_the_table,
)
from tests.spark.transform.test_transform import (  # noqa: F401
    FUNCTIONS,
    grey,
    test_groups_go_through_a_pandas_function,
    test_mistakes_stop_before_anything_is_written,
    test_rows_are_transformed_in_one_commit_and_failures_kept,
)


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    """Return a function that ingests ``src`` into ``lake/images`` with some options changed."""

    def run(progress: Callable[[str], None] | None = None, **options: Any) -> IngestResult:
        values = {
            "source": {"path": str(tmp_path / "src"), "label": "parent"},
            "output__table": str(tmp_path / "lake/images"),
            "engine__name": "local",
        } | options
        return ingest_images(IngestConfig.load(**values), progress=progress)

    return run


@pytest.fixture
def engine() -> str:
    """Return the engine of jobs in processes of their own."""
    return "local"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a table of six images in two labels, of which one does not decode; users' functions are importable."""
    (tmp_path / "my_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    contents = [bytearray(grey(number * 40)) for number in range(6)]
    contents[5][43:53] = bytes(10)
    table = pa.table(
        {
            "path": [f"/photos/{number}.png" for number in range(6)],
            "label": ["ab"[number % 2] for number in range(6)],
            "width": pa.array([40] * 6, pa.int32()),
            "height": pa.array([30] * 6, pa.int32()),
            "content": [bytes(content) for content in contents],
        }
    )
    write_deltalake(tmp_path / "lake/images", table)
    return str(tmp_path / "lake/images")


@pytest.fixture
def transform(images: str, tmp_path: Path) -> Callable[..., TransformResult]:
    """Return a function that transforms the table with some options changed."""

    def run(**options: Any) -> TransformResult:
        values = {"source__table": images, "output__table": str(tmp_path / "lake/small"), "engine__name": "local"}
        return transform_images(TransformConfig.load(**(values | options)))

    return run


def test_a_partitioned_table(ingest: Ingest, tmp_path: Path) -> None:
    put(tmp_path, {"cat/a.png": grey(1), "dog/b.png": grey(2), "c.png": grey(3)})
    assert ingest(output__partition_by=["label"]).added == 3
    assert ingest(output__partition_by=["label"]).unchanged == 3
    table = DeltaTable(tmp_path / "lake/images")
    assert table.metadata().partition_columns == ["label"]
    assert {name: row["label"] for name, row in rows(tmp_path / "lake/images").items()} == {
        "cat/a.png": "cat",
        "dog/b.png": "dog",
        "c.png": "src",
    }


def test_a_catalog_s_table_is_refused_before_anything_runs(ingest: Ingest, tmp_path: Path) -> None:
    put(tmp_path, {"a.png": grey(1)})
    with pytest.raises(SetupError, match=r"^\[ENGINE_LOCAL\] .*photos.* Hint: "):
        ingest(output__table="default.photos")
