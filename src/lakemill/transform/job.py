"""Images of one Delta table to images of another: grey, resized, cropped, encoded anew, or through a user's function.

Row by row, everything happens in one pass over the source, with its other columns riding along, and in one commit.
The rows that are then missing in the output are looked at again, and go with their reason to ``<output>_quarantine``.
With ``group_by``, whole groups go through a pandas function: the images are shuffled for that, and a group that fails
fails the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from lakemill.config.base import must_be
from lakemill.config.transform import TransformConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import Engine, opened
from lakemill.engines.needs import Needs
from lakemill.engines.output_tables import check_own
from lakemill.engines.places import Place, check_apart, places_of
from lakemill.engines.relations import PieceFunction, Rows
from lakemill.engines.reserved_columns import reserved_columns
from lakemill.engines.schemas import type_text
from lakemill_udfs.errors import TableError
from lakemill_udfs.images.transforms import (
    FAILED,
    ImageSource,
    ImageTransform,
    find_failed,
    transform_group,
    transform_rows,
)
from lakemill_udfs.steps.functions import import_function

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession

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

    def to_dict(self) -> dict[str, object]:
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
        spark: The session to use; without one, ``config.engine`` says what it runs on.
        progress: Called with one line of text at each stage; without one, the lines are logged.

    Raises:
        ConfigError: ``TABLES_OVERLAP``, ``FUNCTION_NOT_FOUND`` or ``WHERE_INVALID``.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION``, ``COLUMN_MISSING``, ``TABLE_SCHEMA``, or ``OUTPUT_NOT_OURS``
            if this job did not make the output.
        RunError: ``FUNCTION_FAILED`` on a group; storage, a worker or the commit failed. The output is as it was.
    """
    started = time.monotonic()
    must_be(config, TransformConfig)
    table_names.check_path(config.source.table)
    check_apart(transform_places(config))
    say = progress or logger.info
    with open_engine(spark, transform_needs(config), config.engine, say).for_images() as engine:
        check_apart(transform_places(config), places_of(engine))
        rows = open_source(config, engine)
        shipped = _ship(config.transform, engine)
        work = _by_group if config.group_by else _by_row
        result = work(config, shipped, engine, rows, say)
    return replace(result, seconds=round(time.monotonic() - started, 3))


def transform_places(config: TransformConfig) -> list[Place]:
    """Return the tables of a transform job."""
    output = config.output.table
    return [
        Place("source.table", config.source.table, is_source=True),
        Place("output.table", output),
        Place("the output's _quarantine table", table_names.sibling(output, "_quarantine")),
    ]


def transform_needs(config: TransformConfig, *, writes: bool = True) -> Needs:
    """Return what a transform job needs of an engine."""
    source, output = config.source, config.output
    tables = (output.table, table_names.sibling(output.table, "_quarantine")) if writes else ()
    return Needs(config.name, (source.table,), tables, source.where, source.version, output.columns)


def open_source(config: TransformConfig, engine: Engine) -> Rows:
    """Return the source's rows.

    Raises:
        ConfigError: ``WHERE_INVALID`` or ``COLUMN_RESERVED``.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION`` or ``COLUMN_MISSING``.
    """
    snapshot = opened(engine, config.source.table, config.source.version)
    types = {field.name: type_text(field.type) for field in snapshot.schema}
    if types.get("path") != "string" or types.get("content") != "binary":
        raise TableError(
            "COLUMN_MISSING",
            f"'{config.source.table}' must have path string and content binary; "
            f"it has {', '.join(f'{name} {kind}' for name, kind in types.items())}.",
            hint="`lakemill ingest` makes tables of images.",
        )
    for problem in reserved_columns(snapshot.schema, config.source.table, feed="the output keeps one"):
        raise problem
    rows = engine.rows(snapshot)
    return rows if config.source.where is None else rows.where(config.source.where)


def _ship(transform: ImageTransform, engine: Engine) -> ImageTransform:
    """Send the user's module to the workers, after finding the function here."""
    if transform.function is None:
        return transform
    import_function(transform.function)
    return replace(transform, archive=engine.send(transform.function.partition(":")[0]))


def _by_row(
    config: TransformConfig, transform: ImageTransform, engine: Engine, rows: Rows, say: Callable[[str], None]
) -> TransformResult:
    output = config.output.table
    check_own(engine, output, rows.schema, _owner(config))
    count = rows.count()
    say(f"Transforming {count:,} images ...")
    source = image_source(config, engine)
    transformed = rows.map(partial(transform_rows, transform=transform, source=source), rows.schema)
    engine.overwrite(transformed, output, _owner(config))
    made = opened(engine, output)
    done = engine.rows(made).select(["path"])
    failed = _quarantine(engine, rows, done, partial(find_failed, transform=transform, source=source), config)
    if failed:
        say(f"{failed:,} rows failed: see {table_names.sibling(output, '_quarantine')}.")
    return TransformResult(output, made.version, count, done.count(), failed, 0.0)


def _owner(config: TransformConfig) -> str:
    """Return who the output belongs to."""
    return f"transform/{config.name}"


def image_source(config: TransformConfig, engine: Engine) -> ImageSource:
    """Return how the source's images are opened: which files its rows may name, and what one may cost."""
    properties = opened(engine, config.source.table).properties
    return ImageSource(config.limits.files(properties), config.limits.decode)


def _quarantine(engine: Engine, rows: Rows, done: Rows, look: PieceFunction, config: TransformConfig) -> int:
    """Look at the rows that are not in the output again, write why to the quarantine, and return how many there are."""
    name = table_names.sibling(config.output.table, "_quarantine")
    missing = rows.select(["path"]).without(done, ["path"]).to_arrow()
    if not missing.num_rows and engine.snapshot(name) is None:
        return 0
    again = rows.select(["path", "content"]).only(engine.given(missing), ["path"])
    failed = again.map(look, FAILED).to_arrow()
    now = pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), failed.num_rows)
    failures = engine.given(failed.append_column("time", now))
    check_own(engine, name, failures.schema, _owner(config))
    engine.overwrite(failures, name, _owner(config))
    count: int = failed.num_rows
    return count


def _by_group(
    config: TransformConfig, transform: ImageTransform, engine: Engine, rows: Rows, say: Callable[[str], None]
) -> TransformResult:
    output, names = config.output.table, rows.schema.names
    if unknown := [name for name in config.group_by if name not in names]:
        raise TableError(
            "COLUMN_MISSING",
            f"'{config.source.table}' has no column {', '.join(unknown)} to group by.",
            hint=f"it has: {', '.join(names)}.",
        )
    count = rows.count()
    say(f"Transforming {count:,} images in groups of {', '.join(config.group_by)} ...")
    call = partial(transform_group, function=str(transform.function), archive=transform.archive)
    made = rows.map_groups(config.group_by, call, config.output.columns or rows.schema)
    check_own(engine, output, made.schema, _owner(config))
    engine.overwrite(made, output, _owner(config))
    there = opened(engine, output)
    return TransformResult(output, there.version, count, engine.rows(there).count(), 0, 0.0)
