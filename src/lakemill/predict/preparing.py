"""Before a predict run: its models found, its source opened, its plan made, its output there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine
from lakemill.engines.schemas import predictions_schema, tensors_of
from lakemill.pipelines.function_code import FunctionCode
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.registry import Finder
from lakemill.pipelines.resolving import Resolved, resolve, resolve_uri
from lakemill.predict.cascades import with_thresholds
from lakemill.predict.challengers import remember
from lakemill.predict.commits import prepare_output
from lakemill.predict.quarantine import complete_quarantine
from lakemill.predict.run import PredictResult, Progress, Run, state_of
from lakemill.predict.source import Source, open_source, passed_columns
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.plan import PredictPlan, Provenance

MOST_NAMED = 8
"""Models that a run's first line names."""


def resolve_config(config: PredictConfig) -> Resolved:
    """Return a job's pipeline with its models found.

    Raises:
        ModelError: a model or alias is unknown.
    """
    if config.pipeline.uri is None:
        return resolve(config.pipeline.declared(), config.registry, config.trust)
    resolved = resolve_uri(config.pipeline.uri, config.registry, config.trust)
    inside, over = resolved.pipeline, config.pipeline
    pipeline = replace(
        inside,
        checks=inside.checks + FunctionCode(Finder(config.registry), config.trust).of_checks(over.checks),
        outputs=over.outputs or inside.outputs,
        inputs=inside.inputs + over.tensors,
    )
    return replace(resolved, pipeline=pipeline)


def prepare(
    config: PredictConfig, engine: Engine, tell: Progress, *, output: bool = True, replaces_table: bool = False
) -> Run:
    """Find everything, plan, and check what can be checked before anything is scored.

    Args:
        config: The job.
        engine: Where it runs.
        tell: Gets a line of progress.
        output: Whether the output is made ready too.
        replaces_table: Whether the output is overwritten whole, whatever it is.

    Raises:
        ConfigError: something does not fit.
    """
    resolved = resolve_config(config)
    tell(f"pipeline {resolved.name or config.name} {resolved.pipeline.version}: {named_models(resolved.models)}")
    source = open_source(config, engine)
    resolved = with_thresholds(config, resolved, source, engine, tell)
    run_id = uuid.uuid4().hex
    plan, schema = plan_for(config, resolved, source, engine, run_id)
    plan = engine.prepare(plan, source.snapshot)
    if output:
        remember(config, plan.pipeline)
    is_new = output and prepare_output(engine, config, schema, replaces_table=replaces_table)
    result = PredictResult(config.name, run_id, config.mode, config.output.table, plan.pipeline.version)
    state = state_of(engine, config, replaces_table=replaces_table) if output else None
    run = Run(config, engine, source, plan, schema, result, tell, is_new, replaces_table, state)
    if output:
        complete_quarantine(run)
    return run


def named_models(models: Sequence[ModelSpec]) -> str:
    """Return models with their versions; of many, the first ones and how many more."""
    named = [
        f"{model.name} " + (f"version {model.version}" if model.version else model.sha256[:12]) for model in models
    ]
    more = [f"and {len(named) - MOST_NAMED} more models"] if len(named) > MOST_NAMED else []
    return ", ".join([*named[:MOST_NAMED], *more])


def plan_for(
    config: PredictConfig, resolved: Resolved, source: Source, engine: Engine, run_id: str
) -> tuple[PredictPlan, pa.Schema]:
    """Return the plan of a run and the columns of its predictions; nothing is shipped yet.

    Raises:
        ConfigError: the pipeline does not fit the source.
    """
    columns = source.snapshot.schema
    plan = make_plan(
        resolved,
        tensors_of(columns),
        passthrough=passed_columns(config, columns.names),
        batch_rows=config.engine.batch_rows,
        batch_bytes=config.engine.batch_bytes,
        device=config.engine.device,
        threads=engine.threads,
        parts=config.output.parts,
        task_metrics=not config.engine.group_by,
        provenance=Provenance(config.name, run_id, pipeline=resolved.name or config.name),
    )
    recorded = {} if config.limits.allowed_roots else source.snapshot.properties
    return replace(plan, files=config.limits.files(recorded)), predictions_schema(plan, columns)
