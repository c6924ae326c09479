"""DataFrames: what they compute is written once into a cache folder, read from there, and deleted at exit.

Only DataFrames' public methods are used, so this works over Spark Connect too.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.local.tables import open_table
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import filesystem

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PARENT = "petastorm.spark.converter.parentCacheDirUrl"
"""The Spark setting with the folder of all copies; a local session needs none."""

CODECS = ("uncompressed", "gzip", "lz4", "snappy", "zstd")
"""Those that Parquet has; petastorm also names bzip2 and deflate."""


@dataclass(frozen=True)
class Copy:
    """A DataFrame's rows, written as a Delta table.

    Args:
        rows: The DataFrame.
        layout: Spark's settings that it was written with.
        sources: What its sources were.
        location: Of the copy, as a path or URI.
    """

    rows: DataFrame
    layout: Mapping[str, str]
    sources: frozenset[tuple[str, int]]
    location: str


_copies: list[Copy] = []


def copy_of(df: DataFrame, row_group_bytes: int, codec: str | None) -> str:
    """Return where a DataFrame's rows are; an equal one of unchanged sources is not written again.

    Args:
        df: Any DataFrame.
        row_group_bytes: Of the copy's row groups.
        codec: Parquet's; None is ``uncompressed``.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT`` for an unknown codec, ``TRAINING_CACHE`` if nothing says where to.
        LakemillError: the DataFrame fails.
    """
    if codec is not None and codec.lower() not in CODECS:
        raise ConfigError("TRAINING_ARGUMENT", f"'compression_codec' is one of {', '.join(CODECS)}; got {codec!r}.")
    layout = {
        "parquet.block.size": str(row_group_bytes),
        "spark.sql.parquet.compression.codec": (codec or "uncompressed").lower(),
    }
    sources = _sources(df)
    for copy in _copies:
        is_alike = (copy.layout, copy.sources) == (layout, sources) and copy.rows.sparkSession is df.sparkSession
        if is_alike and copy.rows.sameSemantics(df):
            return copy.location
    location = f"{_parent(df.sparkSession)}/{time.strftime('%Y%m%d%H%M%S')}-lakemill-{uuid.uuid4()}"
    _write(df, location, layout)
    if not _copies:
        atexit.register(_discard_all, os.getpid())
    _copies.append(Copy(df, layout, sources, local_form(location)))
    return local_form(location)


def discard(location: str) -> None:
    """Delete a copy; best effort, as petastorm does."""
    _copies[:] = [copy for copy in _copies if copy.location != location]
    store, folder = filesystem(location)
    try:
        store.delete_dir(folder)
    except OSError:  # gone already, or for whoever cleans the cache folder up
        return


def _discard_all(process: int) -> None:
    if os.getpid() == process:  # a forked child has the same list, and must not end its parent's training
        for copy in list(_copies):
            discard(copy.location)


def local_form(url: str) -> str:
    """Return a local path for ``file:`` and Databricks' ``dbfs:`` URLs, which Spark takes; any other as it is."""
    if url.startswith("dbfs:/"):
        return "/dbfs/" + url.removeprefix("dbfs:").lstrip("/")
    return "/" + unquote(url.removeprefix("file:")).lstrip("/") if url.startswith("file:") else url


def _parent(spark: SparkSession) -> str:
    parent = spark.conf.get(PARENT, None)
    if parent:
        return parent.rstrip("/")
    if str(spark.conf.get("spark.master", "")).startswith("local"):
        return Path(tempfile.gettempdir()).as_uri()
    raise ConfigError(
        "TRAINING_CACHE",
        f"a DataFrame is written once before it is read, and '{PARENT}' does not say where to.",
        hint="set it on the session, to a folder that driver and workers share; or give a table, which is not copied.",
    )


def _sources(df: DataFrame) -> frozenset[tuple[str, int]]:
    """Return the versions of the Delta tables that a DataFrame reads, and the times of other files."""
    found: set[tuple[str, int]] = set()
    roots: dict[str, str | None] = {}
    for url in df.inputFiles():
        path = local_form(url)
        folder = path.rpartition("/")[0]
        if folder not in roots:
            roots[folder] = delta_root(folder)
            if (root := roots[folder]) is not None and (table := open_table(root)) is not None:
                found.add((root, table.version))
        if roots[folder] is None:
            store, inside = filesystem(path)
            found.add((path, store.get_file_info(inside).mtime_ns or 0))
    return frozenset(found)


def delta_root(folder: str) -> str | None:
    """Return the Delta table that a folder is of, which may be some partitions above; None if of none."""
    while folder.rstrip("/").count("/") > 2 * ("://" in folder):
        if DeltaLog(folder).is_there():
            return folder
        if "=" not in folder.rpartition("/")[2]:
            return None
        folder = folder.rpartition("/")[0]
    return None


def _write(df: DataFrame, location: str, layout: Mapping[str, str]) -> None:
    from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
    from lakemill.engines.spark.session import settings_held

    with settings_held(df.sparkSession, layout):  # Delta takes Parquet's layout from the session only
        try:
            _without_vectors(df).write.format("delta").save(location)
        except SPARK_FAILURES as error:
            raise spark_failure(error) from error


def _without_vectors(df: DataFrame) -> DataFrame:
    """Return the DataFrame with Spark ML's vectors as arrays."""
    vectors = [field.name for field in df.schema if type(field.dataType).__name__ == "VectorUDT"]
    if not vectors:
        return df
    from pyspark.ml.functions import vector_to_array

    return df.withColumns({name: vector_to_array(df[name]) for name in vectors})
