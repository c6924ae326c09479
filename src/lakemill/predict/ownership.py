"""What is a predict job's own: its tables and folders lie apart, and it writes into predictions tables only.

It is looked at before anything is read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

from lakemill.config.base import LOCK_SUFFIX
from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.places import Place, check_apart, places_of
from lakemill.ingest.places import ingest_places
from lakemill.predict.needs import predict_needs
from lakemill.predict.progress import checkpoint_of
from lakemill_udfs.errors import TableError

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession


def predict_places(config: PredictConfig) -> list[Place]:
    """Return the tables and folders of a predict job, those of the ingest job within it too."""
    output = config.output.table
    places = [
        Place("source.table", config.source.table, is_source=True),
        Place("output.table", output),
        *(Place(f"the output's {end} table", table_names.sibling(output, end)) for end in table_names.MEASURES),
        Place("the checkpoint", checkpoint_of(config).location),
        Place("the job's lock", checkpoint_of(config).location + LOCK_SUFFIX, is_file=True),
    ]
    if config.quarantine.table is not None:
        places.append(Place("quarantine.table", config.quarantine.table))
    if config.ingest is not None:
        places += [place for place in ingest_places(config.ingest) if place.role != "output.table"]
    return places


def check_own(config: PredictConfig, spark: SparkSession | None) -> None:
    """Refuse a job that would write into what is not its own; nothing is read but names.

    Args:
        config: The job.
        spark: The session; it is only needed for tables of the catalog.

    Raises:
        ConfigError: ``TABLES_OVERLAP`` or ``CHECKPOINT_NOT_OURS``.
    """
    places = predict_places(config)
    check_apart(places)
    if not all(table_names.is_path(place.name) for place in places):
        check_apart(places, places_of(open_engine(spark, predict_needs(config), config.engine)))
    checkpoint_of(config).check_own(config.name)


def check_predictions(role: str, table: str, schema: pa.Schema) -> None:
    """Refuse a table that is no predictions table; what it holds was made by something else.

    Args:
        role: The configuration's key that names it.
        table: Its name.
        schema: Its columns.

    Raises:
        TableError: ``OUTPUT_NOT_OURS``.
    """
    parts = {field.name: {inner.name for inner in field.type} for field in schema if types.is_struct(field.type)}
    if parts.get("metadata", set()) >= {"job", "run_id"} and parts.get("error", set()) >= {"stage", "code", "message"}:
        return
    raise TableError(
        "OUTPUT_NOT_OURS",
        f"{role} '{table}' is a table of something else: a predictions table has the columns error and metadata, "
        f"this one has {', '.join(schema.names[:8])}{', ...' if len(schema.names) > 8 else ''}.",
        hint="give the predictions a table of their own; it is made by the first run.",
    )
