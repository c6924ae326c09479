"""``make_spark_converter``: a Delta table's rows for PyTorch, TensorFlow or numpy, under petastorm's names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from lakemill.engines import table_names
from lakemill.training.arguments import filter_sql, reader_arguments
from lakemill.training.exporting import export_rows
from lakemill.training.fields import Fields
from lakemill.training.frames import PARENT, copy_of, discard, local_form
from lakemill.training.loader import Loader
from lakemill.training.plan_text import NotAScanError
from lakemill.training.reading import Reading
from lakemill.training.scans import table_of
from lakemill.training.snapshot import TrainingTable, open_training_table
from lakemill.training.tensorflow_dataset import tensorflow_dataset
from lakemill.training.torch_batches import import_torch, torch_batch
from lakemill_udfs.errors import ConfigError, RunError
from lakemill_udfs.files import RowFiles
from lakemill_udfs.steps.declared import ImageStep

logger = logging.getLogger(__name__)

ROW_GROUP_BYTES = 32 * 2**20
DEFAULT_LAYOUT: tuple[int, str | None] = (ROW_GROUP_BYTES, None)
DTYPES = (None, "float32", "float64")


@dataclass
class SparkDatasetConverter:
    """The rows of one version of a table. It can be pickled, and be read without Spark.

    Args:
        table: The rows.
        images: Steps that decode a column each.
        dtype: Of float tensors.
        cur_shard: The shard that loaders read if they are not told another; None is all rows.
        shard_count: How many shards there are.
        allowed_roots: Folders and URIs below which rows may name files; empty for those that ingest read from.
        max_bytes: Of such a file; larger ones are not read.

    Attributes:
        PARENT_CACHE_DIR_URL_CONF: Name of the Spark setting with the folder of copies, as petastorm calls it.
        is_deleted: Whether ``delete`` was called.
        is_copy: Whether the files are a copy of a DataFrame's rows.
    """

    PARENT_CACHE_DIR_URL_CONF: ClassVar[str] = PARENT

    table: TrainingTable
    images: tuple[ImageStep, ...] = ()
    dtype: str | None = "float32"
    cur_shard: int | None = None
    shard_count: int | None = None
    is_deleted: bool = False
    is_copy: bool = False
    allowed_roots: tuple[str, ...] = ()
    max_bytes: int = RowFiles.max_bytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.rows

    @property
    def cache_dir_url(self) -> str:
        """Where the files are: in the table itself, or in the copy of a DataFrame's rows."""
        return _uri(self.table.location)

    @property
    def file_urls(self) -> list[str]:
        """The files that hold the rows, as URIs."""
        return [_uri(file.path) for file in self.table.files]

    @property
    def dataset_size(self) -> int:
        """Bytes of these files."""
        return sum(file.size for file in self.table.files)

    def delete(self) -> None:
        """End the converter's use. A copy of a DataFrame's rows is deleted; a table's own files stay as they are."""
        self.is_deleted = True
        if self.is_copy:
            discard(self.table.location)

    def shard(self, cur_shard: int, shard_count: int) -> SparkDatasetConverter:
        """Return a converter whose loaders read one shard if they are not told another."""
        return replace(self, cur_shard=cur_shard, shard_count=shard_count)

    def make_torch_dataloader(
        self,
        batch_size: int = 32,
        num_epochs: int | None = 1,
        workers_count: int | None = None,
        shuffling_queue_capacity: int = 0,
        data_loader_fn: Any = None,
        **reader_kwargs: Any,
    ) -> Loader:
        """Return a context manager that iterates over batches as ``{name: torch.Tensor}``; strings are lists.

        Args:
            batch_size: Rows of a batch.
            num_epochs: Epochs of one iteration; None is without end. Each iteration goes on with the next epoch.
            workers_count: Threads that read and decode, or processes that decode; None is 4.
            shuffling_queue_capacity: Rows of several row groups that are shuffled together; 0 shuffles only row groups.
            data_loader_fn: Not taken.
            reader_kwargs: ``schema_fields``, ``cur_shard``, ``shard_count``, ``seed``, ``shuffle_rows``,
                ``shuffle_row_groups``, ``shard_seed``, ``results_queue_size``, ``filters``, ``transform_spec`` and
                ``reader_pool_type`` (``thread`` or ``process``) as petastorm's ``make_batch_reader`` has them; ``last``
                (``keep``, ``drop`` or ``pad`` the rows that fill no batch) and ``ragged`` (``error``, ``pad`` or
                ``list``). Its others are an error.

        Raises:
            ModelError: ``EXTRA_MISSING`` without PyTorch.
            LakemillError: as ``make_loader``.
        """
        import_torch()
        given = reader_kwargs | {
            "batch_size": batch_size,
            "num_epochs": num_epochs,
            "workers_count": workers_count,
            "shuffling_queue_capacity": shuffling_queue_capacity,
            "data_loader_fn": data_loader_fn,
        }
        return Loader(replace(self.reading(given), finish=torch_batch))

    def make_tf_dataset(
        self,
        batch_size: int | None = None,
        prefetch: int | None = None,
        num_epochs: int | None = 1,
        workers_count: int | None = None,
        shuffling_queue_capacity: int | None = None,
        **reader_kwargs: Any,
    ) -> AbstractContextManager[Any]:
        """Return a context manager of a ``tf.data.Dataset`` whose elements are named tuples of tensors.

        Args:
            batch_size: Rows of a batch; None is 32.
            prefetch: Batches that TensorFlow keeps ready; None lets it choose.
            num_epochs: Epochs of one iteration; None is without end, as ``fit(steps_per_epoch=...)`` needs it.
            workers_count: As ``make_torch_dataloader``.
            shuffling_queue_capacity: As ``make_torch_dataloader``.
            reader_kwargs: As ``make_torch_dataloader``.

        Raises:
            ModelError: ``EXTRA_MISSING`` without TensorFlow.
            LakemillError: as ``make_loader``.
        """
        given = reader_kwargs | {
            "batch_size": batch_size,
            "num_epochs": num_epochs,
            "workers_count": workers_count,
            "shuffling_queue_capacity": shuffling_queue_capacity,
        }
        return tensorflow_dataset(Loader(self.reading(given)), prefetch)

    def make_loader(self, batch_size: int | None = None, **reader_arguments: Any) -> Loader:
        """Return a context manager of batches as ``{name: array}``; the framework's loaders stand on it.

        Args:
            batch_size: Rows of a batch; None is 32.
            reader_arguments: As ``make_torch_dataloader`` takes them.

        Raises:
            ConfigError: ``TRAINING_ARGUMENT``, ``TRAINING_FIELD``, ``TRAINING_SHARDS``, ``TRAINING_BATCHES``,
                ``TRAINING_RANK``.
            TableError: ``TRAINING_COLUMN``.
            RunError: ``TRAINING_CLOSED`` after ``delete``.
        """
        return Loader(self.reading(reader_arguments | {"batch_size": batch_size}))

    def export(
        self, folder: str | Path, format: str, *, schema_fields: Sequence[str] | None = None, shard_rows: int = 10_000
    ) -> None:
        """Write the rows once, as they are stored, in another loader's format and by its own library.

        Bytes stay the files that they are (images are not decoded), tensors keep their dtype and shape.

        Args:
            folder: A new local folder.
            format: ``webdataset``, ``mds`` (MosaicML Streaming) or ``datasets`` (Hugging Face).
            schema_fields: Columns; None is all.
            shard_rows: Rows of one file; ``mds`` makes files of 64 MiB instead.

        Raises:
            ConfigError: ``TRAINING_EXPORT``, and as ``make_loader``.
            ModelError: ``EXTRA_MISSING`` without the format's library.
        """
        stored = replace(self, images=(), cur_shard=None, shard_count=None)
        with stored.make_loader(schema_fields=schema_fields, shuffle_row_groups=False, ragged="list") as loader:
            export_rows(loader, Path(folder), format, shard_rows)

    def reading(self, given: dict[str, Any]) -> Reading:
        """Return what a loader with petastorm's arguments reads; raises as ``make_loader``."""
        if self.is_deleted:
            raise RunError("TRAINING_CLOSED", "the converter was deleted.", hint="make it again.")
        if self.cur_shard is not None and given.get("cur_shard") is None:
            given = given | {"cur_shard": self.cur_shard, "shard_count": self.shard_count}
        asked, table = reader_arguments(given), self.table
        if asked.filters:
            both = [f"({where})" for where in (table.where, filter_sql(asked.filters)) if where]
            table = open_training_table(table.location, table.version, " AND ".join(both), table.schema.names)
        selected = None if asked.schema_fields is None else tuple(asked.schema_fields)
        files = RowFiles(self.allowed_roots or table.roots, self.max_bytes)
        fields = Fields(table.schema, self.images, self.dtype, selected, asked.transform_spec, asked.ragged, files)
        is_apart = asked.reader_pool_type == "process"
        return Reading(table, fields, asked.order, asked.num_epochs, asked.workers, asked.ahead, in_processes=is_apart)


def make_spark_converter(
    df: Any,
    parquet_row_group_size_bytes: int = ROW_GROUP_BYTES,
    compression_codec: str | None = None,
    dtype: str | None = "float32",
    *,
    version: int | str | None = None,
    where: str | None = None,
    images: ImageStep | Sequence[ImageStep] = (),
    allowed_roots: Sequence[str] = (),
    max_bytes: int = RowFiles.max_bytes,
) -> SparkDatasetConverter:
    """Make rows ready for training: those of a Delta table without a copy, those of a DataFrame written once.

    Args:
        df: Path, URI or catalog name of a Delta table; or a DataFrame. One that only scans a Delta table, filters its
            rows and chooses columns is read from the table's newest version. Another's rows are written into a folder
            below the setting ``petastorm.spark.converter.parentCacheDirUrl`` and deleted when this process ends, and a
            warning says why; an equal DataFrame is written once.
        parquet_row_group_size_bytes: Of such a copy; a table is not copied, so it has the default only.
        compression_codec: Of such a copy; None is ``uncompressed``.
        dtype: ``float32`` or ``float64``, to which float columns and arrays are cast, or None.
        version: The table's version, or a time in ISO 8601; None pins the newest one now. Not for a DataFrame.
        where: SQL that keeps rows.
        images: Image steps; the tensors are those of inference, bit for bit.
        allowed_roots: Folders and URIs below which rows may name files by their path, for images that are not in the
            table; empty for those that ingest read from.
        max_bytes: Of such a file. A larger one is a row without a tensor: ``[TRAINING_ROW] ... [FILE_TOO_LARGE]``.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT``, ``TRAINING_FIELD``, ``WHERE_INVALID``; ``TRAINING_CACHE`` if no setting says
            where a DataFrame is written to.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``.
        SetupError: ``ENGINE_LOCAL`` for a table that cannot be read without Spark.
    """
    if dtype not in DTYPES:
        raise ConfigError("TRAINING_ARGUMENT", f"'dtype' is float32, float64 or None; got {dtype!r}.")
    steps = (images,) if isinstance(images, ImageStep) else tuple(images)
    if hasattr(df, "sparkSession"):
        if version is not None:
            raise ConfigError("TRAINING_ARGUMENT", "'version' is of a table; a DataFrame has its own.")
        layout = (parquet_row_group_size_bytes, compression_codec)
        table, is_copy = _frame_s_table(df, where, layout)
        return SparkDatasetConverter(
            table, steps, dtype, is_copy=is_copy, allowed_roots=tuple(allowed_roots), max_bytes=max_bytes
        )
    if (parquet_row_group_size_bytes, compression_codec) != DEFAULT_LAYOUT:
        raise ConfigError(
            "TRAINING_ARGUMENT",
            "'parquet_row_group_size_bytes' and 'compression_codec' are of a copy, and a table is not copied.",
            hint="leave them out.",
        )
    table = replace(open_training_table(_location(str(df)), version, where), table=str(df))
    return SparkDatasetConverter(table, steps, dtype, allowed_roots=tuple(allowed_roots), max_bytes=max_bytes)


def _frame_s_table(df: Any, where: str | None, layout: tuple[int, str | None]) -> tuple[TrainingTable, bool]:
    """Return a DataFrame's rows, and whether they are a copy: those of a table's version are not copied."""
    why = "its row groups or compression are asked for"
    if layout == DEFAULT_LAYOUT:
        try:
            return table_of(df, where), False
        except NotAScanError as reason:
            why = str(reason)
    logger.warning("The DataFrame is written once before it is read: %s. A table with where=... is not.", why)
    return open_training_table(copy_of(df, *layout), None, where), True


def _location(table: str) -> str:
    """Return where a table is; a catalog's name is looked up by Spark."""
    if table_names.is_path(table):
        return local_form(table)
    from lakemill.engines.spark import tables
    from lakemill.engines.spark.session import get_session

    spark = get_session("training")
    if not tables.exists(spark, table):
        raise table_names.not_found(table)
    return local_form(str(tables.detail(spark, table)["location"]))


def _uri(path: str) -> str:
    return path if "://" in path else f"file://{path}"
