"""Images of one Delta table to images of another: grey, resized, cropped, encoded anew, or through a user's function.

Row by row, everything happens in one pass over the source, with its other columns riding along, and in one commit.
The rows that are then missing in the output are looked at again, and go with their reason to ``<output>_quarantine``.
With ``group_by``, whole groups go through a pandas function: the images are shuffled for that, and a group that fails
fails the run.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lakemill.config.transform import TransformConfig
from lakemill.engines import table_names
from lakemill.engines.spark import tables
from lakemill.engines.spark.blob_tables import blob_session, check_schema, overwrite, spark_schema
from lakemill.engines.spark.errors import SPARK_FAILURES, spark_failure
from lakemill.engines.spark.session import get_session
from lakemill.engines.spark.shipping import ship_module
from lakemill_udfs.errors import TableError
from lakemill_udfs.images.transforms import FAILED, ImageTransform, find_failed, transform_group, transform_rows
from lakemill_udfs.steps.functions import import_function

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformResult:
    """What one run did.

    Args:
        table: The output.
        version: Its version after the run.
        rows: Rows of the source.
        transformed: Rows of the output.
        failed: Rows in the quarantine; always 0 with ``group_by``.
        seconds: Wall-clock time.
    """

    table: str
    version: int
    rows: int
    transformed: int
    failed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return the run in one line."""
        return (
            f"{self.rows:,} rows: {self.transformed:,} transformed, {self.failed:,} failed; "
            f"{self.table} is at version {self.version}, {self.seconds:.1f} s"
        )


def transform_images(
    config: TransformConfig, spark: SparkSession | None = None, *, progress: Callable[[str], None] | None = None
) -> TransformResult:
    """Transform the images of a table into another table, which is overwritten.

    Args:
        config: What to do.
        spark: The session to use; without one, ``get_session``.
        progress: Called with one line of text at each stage; without one, the lines are logged.

    Raises:
        ConfigError: ``FUNCTION_NOT_FOUND`` or ``WHERE_INVALID``.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``, ``COLUMN_MISSING`` or ``TABLE_SCHEMA``.
        RunError: ``FUNCTION_FAILED`` on a group; storage, a worker or the commit failed. The output is as it was.
    """
    started = time.monotonic()
    with blob_session(spark or get_session(config.name)) as session:
        rows = open_source(config, session)
        shipped = _ship(config.transform, session)
        work = _by_group if config.group_by else _by_row
        try:
            result = work(config, shipped, rows, progress or logger.info)
        except SPARK_FAILURES as error:
            raise spark_failure(error) from error
    return replace(result, seconds=round(time.monotonic() - started, 3))


def open_source(config: TransformConfig, spark: SparkSession) -> DataFrame:
    """Return the source's rows.

    Raises:
        ConfigError: ``WHERE_INVALID``.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION`` or ``COLUMN_MISSING``.
    """
    rows = tables.read(spark, config.source.table, config.source.version)
    types = dict(rows.dtypes)
    if types.get("path") != "string" or types.get("content") != "binary":
        raise TableError(
            "COLUMN_MISSING",
            f"'{config.source.table}' must have path string and content binary; "
            f"it has {', '.join(f'{name} {kind}' for name, kind in types.items())}.",
            hint="`lakemill ingest` makes tables of images.",
        )
    return tables.filtered(rows, config.source.where)


def _ship(transform: ImageTransform, spark: SparkSession) -> ImageTransform:
    """Send the user's module to the executors, after finding the function here."""
    if transform.function is None:
        return transform
    import_function(transform.function)
    return replace(transform, archive=ship_module(spark, transform.function.partition(":")[0]))


def _by_row(
    config: TransformConfig, transform: ImageTransform, rows: DataFrame, say: Callable[[str], None]
) -> TransformResult:
    output, spark = config.output.table, rows.sparkSession
    check_schema(spark, output, rows.schema)
    count = rows.count()
    say(f"Transforming {count:,} images ...")
    overwrite(rows.mapInArrow(partial(transform_rows, transform=transform), rows.schema), output)
    done = spark.table(tables.sql_name(output)).select("path")
    failed = _quarantine(rows, done, transform, output)
    if failed:
        say(f"{failed:,} rows failed: see {table_names.sibling(output, '_quarantine')}.")
    return TransformResult(output, tables.version(spark, output), count, done.count(), failed, 0.0)


def _quarantine(rows: DataFrame, done: DataFrame, transform: ImageTransform, output: str) -> int:
    """Look at the rows that are not in the output again, write why to the quarantine, and return how many there are."""
    from pyspark.sql import functions as F  # noqa: N812 -- PySpark's own name for it

    spark, name = rows.sparkSession, table_names.sibling(output, "_quarantine")
    missing = rows.select("path").join(done, "path", "left_anti")
    if missing.isEmpty() and not tables.exists(spark, name):
        return 0
    again = rows.select("path", "content").join(F.broadcast(missing), "path", "left_semi")
    why = again.mapInArrow(partial(find_failed, transform=transform), spark_schema(spark, FAILED))
    overwrite(why.withColumn("time", F.current_timestamp()), name)
    return spark.table(tables.sql_name(name)).count()


def _by_group(
    config: TransformConfig, transform: ImageTransform, rows: DataFrame, say: Callable[[str], None]
) -> TransformResult:
    output, spark = config.output.table, rows.sparkSession
    if unknown := [name for name in config.group_by if name not in rows.columns]:
        raise TableError(
            "COLUMN_MISSING",
            f"'{config.source.table}' has no column {', '.join(unknown)} to group by.",
            hint=f"it has: {', '.join(rows.columns)}.",
        )
    count = rows.count()
    say(f"Transforming {count:,} images in groups of {', '.join(config.group_by)} ...")
    call = partial(transform_group, function=str(transform.function), archive=transform.archive)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot infer the eval type")  # a partial has no type hints, and needs none
        made = rows.groupBy(*config.group_by).applyInPandas(call, config.output.columns or rows.schema)
    check_schema(spark, output, made.schema)
    overwrite(made, output)
    return TransformResult(
        output, tables.version(spark, output), count, spark.table(tables.sql_name(output)).count(), 0, 0.0
    )
