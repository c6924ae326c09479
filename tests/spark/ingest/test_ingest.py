"""What of ingest is Spark's own: its layout of files, its catalog, its session; read back without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs import ingest_images as job
from lakemill.config.ingest import IngestConfig
from lakemill.engines.image_layout import ROW_GROUP_BYTES
from lakemill.engines.spark.engine import SparkEngine
from lakemill.ingest.job import IngestResult, ingest_images
from lakemill_udfs.errors import ConfigError, TableError
from tests.photos import image, put, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Ingest = Callable[..., IngestResult]


@pytest.fixture
def ingest(spark: SparkSession, tmp_path: Path) -> Ingest:
    """Return a function that ingests ``src`` into ``lake/images`` with some options changed."""

    def run(progress: Callable[[str], None] | None = None, **options: Any) -> IngestResult:
        values = {
            "source": {"path": str(tmp_path / "src"), "label": "parent"},
            "output__table": str(tmp_path / "lake/images"),
        } | options
        return ingest_images(IngestConfig.load(**values), spark, progress=progress)

    return run


def check_layout(table: Path) -> list[int]:
    """Check how the images lie in the table's Parquet files, and return the sizes of the row groups."""
    sizes = []
    for file in DeltaTable(table).file_uris():
        footer = pq.ParquetFile(file).metadata
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            content = group.column(footer.schema.names.index("content"))
            assert content.compression == "UNCOMPRESSED"
            assert not content.has_dictionary_page
            assert content.statistics is None
            sizes.append(group.total_byte_size)
    return sizes


def test_images_lie_uncompressed_in_row_groups_cut_by_bytes_also_after_optimize(
    ingest: Ingest, tmp_path: Path, spark: SparkSession
) -> None:
    """Large and small images alike; compacting makes fewer files and keeps the layout."""
    put(tmp_path, {f"large/{number}.bmp": image(number, "BMP", size=(1200, 900)) for number in range(16)})
    put(tmp_path, {f"small/{number}.bmp": image(number, "BMP", size=(180, 180)) for number in range(60)})
    ingest(limits={"max_pixels": 1200 * 900})
    table = tmp_path / "lake/images"
    sizes = check_layout(table)
    largest = 1200 * 900 * 3 + 10_000
    assert sum(sizes) > 56e6
    assert max(sizes) < ROW_GROUP_BYTES + largest
    files = len(DeltaTable(table).file_uris())
    assert 2 <= files <= 8
    before = rows(table, "sha256", "content")
    facts = SparkEngine(spark).optimize(str(table))
    assert (facts["files_added"], facts["files_removed"]) == (1, files)
    sizes = check_layout(table)
    assert max(sizes) < ROW_GROUP_BYTES + largest
    assert min(sizes[:-1]) > ROW_GROUP_BYTES / 2
    assert rows(table, "sha256", "content") == before


def test_a_partitioned_table_in_the_catalog(ingest: Ingest, spark: SparkSession, tmp_path: Path) -> None:
    """A table by name, one folder for each label."""
    put(tmp_path, {f"{label}/{number}.png": image(number) for label in "ab" for number in range(3)})
    try:
        ingest(output={"table": "default.photos", "partition_by": ["label"]})
        ingest(output={"table": "default.photos", "partition_by": ["label"]})
        counts = spark.sql("SELECT label, count(*) FROM default.photos GROUP BY 1 ORDER BY 1").collect()
        assert counts == [("a", 3), ("b", 3)]
        assert spark.sql("DESCRIBE DETAIL default.photos").collect()[0]["partitionColumns"] == ["label"]
        with pytest.raises(TableError, match=r"\[TABLE_SCHEMA\].*partitioned by \['label'\]"):
            ingest(output={"table": "default.photos"})
    finally:
        spark.sql("DROP TABLE IF EXISTS default.photos")


def test_the_users_session_stays_as_it_was(ingest: Ingest, spark: SparkSession, tmp_path: Path) -> None:
    """No setting of ingest is left in the session, and it is still the one that is active."""
    before = dict(spark.conf.getAll)
    put(tmp_path, {"a.png": image()})
    ingest()
    assert spark.getActiveSession() is spark
    assert dict(spark.conf.getAll) == before


def test_wrong_sources_and_tables_stop_with_a_code(ingest: Ingest, spark: SparkSession, tmp_path: Path) -> None:
    """A source that is not there, a table of something else, a place where no table can be."""
    with pytest.raises(ConfigError, match=r"\[SOURCE_NOT_FOUND\]"):
        ingest()
    put(tmp_path, {"a.png": image()})
    spark.range(3).write.format("delta").save(str(tmp_path / "lake/numbers"))
    with pytest.raises(TableError, match=r"\[TABLE_SCHEMA\].*path string \(got no such column\)"):
        ingest(output__table=str(tmp_path / "lake/numbers"))
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match=r"\[TABLE_NOT_WRITABLE\]"):
        ingest(output__table=str(tmp_path / "file/images"))


def test_the_job_prints_one_json_object(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """jobs/ingest_images.py with the repository's own configuration; wrong keys end with status 2."""
    put(tmp_path, {"a.png": image()})
    arguments = [
        "--config",
        "conf/ingest_images.yaml",
        "--set",
        f"source.path={tmp_path}/src",
        "--set",
        f"output.table={tmp_path}/lake/images",
        "--set",
        "thumbnails=null",
        "--json",
    ]
    assert job.main(arguments, spark) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["listed"], facts["added"], facts["version"]) == (1, 1, 1)
    assert job.main([*arguments, "--set", "source.gob=x"], spark) == 2
    assert "did you mean 'glob'" in capsys.readouterr().err
