"""Two ingests into one table at once: each image is there once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from PIL import Image

from lakemill.config.ingest import IngestConfig
from lakemill.engines.spark.engine import SparkEngine
from lakemill.ingest.job import Ingest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_of_two_ingests_that_listed_the_same_files_one_commits_and_the_other_finds_them(
    tmp_path: Path, spark: SparkSession
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/note.png").write_text("no image")
    values = {"source": {"path": str(tmp_path / "photos")}, "output": {"table": str(tmp_path / "images")}}
    config = IngestConfig.model_validate({"name": "photos", "thumbnails": {"table": f"{tmp_path}/thumbs"}, **values})
    said: list[str] = []

    engine = SparkEngine(spark)

    class Late(Ingest):
        """Lets another ingest run between what it found in the table and its commit."""

        def _look_again(self, files: pl.DataFrame, quarantined: pl.DataFrame) -> pl.DataFrame:
            found = super()._look_again(files, quarantined)
            if not any("meanwhile" in line for line in said):
                Ingest(config, engine, said.append).once()
            return found

    result = Late(config, engine, said.append).once()
    assert any("Another run committed to the table meanwhile" in line for line in said)
    assert (result.added, result.unchanged) == (0, 4)
    for table, rows in (("images", 3), ("thumbs", 3), ("images_quarantine", 1)):
        assert DeltaTable(tmp_path / table).to_pyarrow_table().num_rows == rows
