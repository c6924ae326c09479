"""DataFrames are written once and read from there; a table's name is found by Spark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

from lakemill.training import SparkDatasetConverter, make_spark_converter
from lakemill.training.frames import PARENT
from lakemill_udfs.errors import ConfigError, LakemillError
from tests.unit.training.training_tables import examples, write_examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


@pytest.fixture
def cache(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "cache"
    spark.conf.set(PARENT, folder.as_uri())
    yield folder
    spark.conf.unset(PARENT)


def numbers(converter: SparkDatasetConverter) -> list[int]:
    with converter.make_loader(schema_fields=["number"]) as loader:
        return sorted(number for batch in loader for number in batch["number"].tolist())


def copies(cache: Path) -> int:
    return len(list(cache.iterdir())) if cache.is_dir() else 0


def test_what_a_dataframe_computes_is_written_once_and_deleted(
    spark: SparkSession, cache: Path, tmp_path: Path
) -> None:
    table = write_examples(tmp_path / "examples", 30)

    def even() -> SparkDatasetConverter:
        rows = spark.read.format("delta").load(table).where("number % 2 = 0")
        return make_spark_converter(rows.withColumn("twice", F.col("score") * 2).drop("content"))

    first, second = even(), even()
    assert copies(cache) == 1, "an equal plan over unchanged sources is written once"
    assert numbers(first) == numbers(second) == list(range(0, 30, 2))
    with first.make_loader(schema_fields=["number", "twice", "volume"]) as loader:
        batch = next(iter(loader))
    assert batch["volume"].shape == (15, 2, 3, 4), "the tensor's metadata went along"
    assert batch["twice"].tolist() == (batch["number"] / 4).tolist()
    assert all(url.startswith(cache.as_uri()) for url in first.file_urls)
    second.delete()
    assert copies(cache) == 0


def test_a_source_that_changed_is_written_again(spark: SparkSession, cache: Path, tmp_path: Path) -> None:
    table = write_examples(tmp_path / "examples", 10, 1)

    def rows() -> int:
        return len(make_spark_converter(spark.read.format("delta").load(table).selectExpr("number + 1 AS next")))

    assert rows() == 10
    spark.createDataFrame(examples(10, 5)).write.format("delta").mode("append").save(table)
    assert rows() == 15
    spark.sql(f"DELETE FROM delta.`{table}` WHERE number = 3")  # noqa: S608 -- our own folder
    assert rows() == 14
    assert copies(cache) == 3


def test_row_groups_and_compression_are_as_asked(spark: SparkSession, cache: Path) -> None:
    rows = spark.range(200_000, numPartitions=1).select(F.col("id").alias("number"), F.rand(1).alias("noise"))
    converter = make_spark_converter(rows, parquet_row_group_size_bytes=2**20, compression_codec="gzip")
    footer = pq.ParquetFile(converter.file_urls[0].removeprefix("file://")).metadata
    assert footer.num_row_groups >= 2
    assert footer.row_group(0).column(0).compression == "GZIP"
    assert spark.conf.get("parquet.block.size", None) is None, "the session's settings are as before"
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        make_spark_converter(rows, compression_codec="bzip2")


def test_a_vector_of_spark_ml_is_an_array(spark: SparkSession, cache: Path) -> None:
    rows = spark.createDataFrame([(Vectors.dense([1.0, 2.0]),), (Vectors.sparse(2, {1: 5.0}),)], ["features"])
    with make_spark_converter(rows.coalesce(1)).make_loader(shuffle_row_groups=False) as loader:
        (batch,) = list(loader)
    assert sorted(batch["features"].tolist()) == [[0, 5], [1, 2]]


def test_a_table_s_name_is_looked_up_and_not_copied(spark: SparkSession, cache: Path) -> None:
    spark.createDataFrame(examples(0, 12)).write.format("delta").saveAsTable("training_examples")
    try:
        converter = make_spark_converter("training_examples", where="number > 1")
        assert numbers(converter) == list(range(2, 12))
        assert copies(cache) == 0
        with pytest.raises(LakemillError, match="TABLE_NOT_FOUND"):
            make_spark_converter("training_none")
    finally:
        spark.sql("DROP TABLE training_examples")


def test_a_dataframe_that_fails_says_why(spark: SparkSession, cache: Path) -> None:
    with pytest.raises(LakemillError):
        make_spark_converter(spark.range(3).select(F.raise_error(F.lit("secret")).alias("x")))
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        make_spark_converter(spark.range(3), version=1)


ENDS = """
import sys
from pathlib import Path
from lakemill import get_session
from lakemill.training import make_spark_converter
from lakemill.training.frames import PARENT

spark = get_session("ends", {"spark.master": "local[1]", "spark.driver.memory": "512m"})
spark.conf.set(PARENT, Path(sys.argv[1]).as_uri())
converter = make_spark_converter(spark.range(10))
print(len(converter), len(list(Path(sys.argv[1]).iterdir())))
"""


def test_a_copy_is_deleted_at_the_process_s_exit(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    done = subprocess.run([sys.executable, "-c", ENDS, tmp_path / "cache"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "1"]
    assert copies(tmp_path / "cache") == 0


def test_without_a_folder_for_copies_a_cluster_is_asked_for_one(spark: SparkSession) -> None:
    spark.conf.set("spark.sql.legacy.setCommandRejectsSparkCoreConfs", "false")
    spark.conf.set("spark.master", "spark://elsewhere:7077")
    try:
        with pytest.raises(ConfigError, match="TRAINING_CACHE"):
            make_spark_converter(spark.range(3))
    finally:
        spark.conf.unset("spark.master")
        spark.conf.unset("spark.sql.legacy.setCommandRejectsSparkCoreConfs")
