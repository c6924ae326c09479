"""What of ingest only the local engine has: layouts and refusals of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakemill.config.ingest import IngestConfig
from lakemill.ingest.job import IngestResult, ingest_images
from lakemill_udfs.errors import SetupError
from tests.grey_images import grey
from tests.photos import put, rows

Ingest = Callable[..., IngestResult]


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
