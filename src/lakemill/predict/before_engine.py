"""What can be known of a predict job before an engine starts: it is said at once, not after Java has come up."""

from __future__ import annotations

from lakemill.config.predict import PipelineConfig, PredictConfig
from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog
from lakemill.pipelines import registry
from lakemill.pipelines.planning import look_at_check
from lakemill.predict.by_row import where_problems
from lakemill_udfs.files import local_path
from lakemill_udfs.steps.declared import PythonStep
from lakemill_udfs.steps.functions import import_function

SMALL_BYTES = 64 * 2**20
"""Of a source that Java is done with before its full compiler would have paid."""


def is_small(table: str, most_bytes: int = SMALL_BYTES) -> bool:
    """Return whether a table is known to be small, by this machine's disk alone.

    Args:
        table: Path or catalog name.
        most_bytes: Of a small one.
    """
    if not table_names.is_path(table) or local_path(location := table_names.location(table)) is None:
        return False
    log = DeltaLog(location)
    try:
        newest = log.newest()
        size = None if newest is None else log.size(newest)
    except (OSError, ValueError):  # the run says what is wrong with it
        return False
    return size is not None and size[1] <= most_bytes


def check_before_engine(config: PredictConfig) -> None:
    """Refuse a job whose source table, model files or functions are not where it says, by this machine's disk alone.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
        ModelError: ``MODEL_NOT_FOUND``.
        ConfigError: ``FUNCTION_NOT_FOUND``, ``WHERE_NOT_BY_ROW``, or a check that does not parse.
    """
    for problem in where_problems(config):
        raise problem
    if config.ingest is None:  # else the table may be made by the job itself
        table_names.check_path(config.source.table)
    for uri in local_models(config.pipeline):
        registry.find(uri)
    if config.pipeline.uri is None:
        pipeline = config.pipeline.declared()
        for step in pipeline.steps:
            if isinstance(step, PythonStep):
                import_function(step.function)
        for check in pipeline.checks:
            look_at_check(check)


def local_models(pipeline: PipelineConfig) -> list[str]:
    """Return the pipeline's models that are files of this machine."""
    uris = [pipeline.uri] if pipeline.uri else [step.uri for step in pipeline.declared().model_steps]
    return [uri for uri in uris if uri is not None and not uri.startswith(registry.MLFLOW_SCHEMES) and "#" not in uri]
