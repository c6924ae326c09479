"""What can be known of a predict job before an engine starts: it is said at once, not after Java has come up."""

from __future__ import annotations

from lakemill.config.predict import PipelineConfig, PredictConfig
from lakemill.engines import table_names
from lakemill.pipelines import registry


def check_before_engine(config: PredictConfig) -> None:
    """Refuse a job whose source table or model files are not where it says; only this machine's disk is looked at.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
        ModelError: ``MODEL_NOT_FOUND``.
    """
    if config.ingest is None:  # else the table may be made by the job itself
        table_names.check_path(config.source.table)
    for uri in local_models(config.pipeline):
        registry.find(uri)


def local_models(pipeline: PipelineConfig) -> list[str]:
    """Return the pipeline's models that are files of this machine."""
    uris = [pipeline.uri] if pipeline.uri else [step.uri for step in pipeline.declared().model_steps]
    return [uri for uri in uris if uri is not None and not uri.startswith(registry.MLFLOW_SCHEMES) and "#" not in uri]
