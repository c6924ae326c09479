"""The tables and folders of an ingest job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill.engines import table_names
from lakemill.engines.needs import Needs
from lakemill.engines.places import Place

if TYPE_CHECKING:
    from lakemill.config.ingest import IngestConfig


def ingest_places(config: IngestConfig) -> list[Place]:
    """Return where an ingest job reads and writes; a source without a slash is a folder here, and no catalog name."""
    table = config.output.table
    sources = [path if table_names.is_path(path) else f"./{path}" for path in config.source.paths]
    places = [Place("source.path", path, is_source=True) for path in sources]
    places += [
        Place("output.table", table),
        Place("the output's _quarantine table", table_names.sibling(table, "_quarantine")),
    ]
    if config.thumbnails is not None:
        places.append(Place("thumbnails.table", config.thumbnails.table))
    return places


def ingest_needs(config: IngestConfig) -> Needs:
    """Return what an ingest job needs of an engine."""
    table = config.output.table
    thumbnails = () if config.thumbnails is None else (config.thumbnails.table,)
    return Needs(config.name, writes=(table, table_names.sibling(table, "_quarantine"), *thumbnails))
