"""What a predict job needs of an engine."""

from __future__ import annotations

from lakemill.config.predict import PredictConfig
from lakemill.engines.needs import Needs
from lakemill.ingest.places import ingest_needs


def predict_needs(config: PredictConfig) -> Needs:
    """Return what a predict job, with the ingest job within it, needs of the engine that it runs on."""
    source, writes = config.source, [config.output.table]
    if config.quarantine.table is not None:
        writes.append(config.quarantine.table)
    if config.ingest is not None:
        writes += ingest_needs(config.ingest).writes
    return Needs(config.name, (source.table,), tuple(writes), source.where, source.version)
