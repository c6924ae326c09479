"""A new model without a restart: aliases are looked up before each batch, and a new version is tried before it is used.

The batch in flight keeps its plan; workers load the new version with the next batch, and rows say which one scored
them. A version that does not load, or takes something out of the output, is reported once and the old one stays.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import pyarrow as pa

from lakemill.engines.schemas import lost_fields
from lakemill.pipelines.keyed_models import versions_of_keys
from lakemill.pipelines.registry import alias_version
from lakemill.predict.cascades import with_thresholds
from lakemill.predict.challengers import remember
from lakemill.predict.preparing import named_models, plan_for, resolve_config
from lakemill.predict.run import Run
from lakemill.predict.source import open_source
from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.keyed import PLACEHOLDER, KeyedStep
from lakemill_udfs.worker import predict_whole

logger = logging.getLogger(__name__)

TRIED_ROWS = 8


class ModelUpdates:
    """Follows the aliases that a job's pipeline names.

    Args:
        run: As it was prepared.
    """

    def __init__(self, run: Run) -> None:
        config = run.config.pipeline
        uris = [config.uri] if config.uri else [step.uri for step in config.declared().model_steps]
        self.aliases = tuple(dict.fromkeys(uri for uri in uris if uri.startswith("models:/") and "@" in uri))
        in_use = {uri: m.version for m in run.plan.models for uri in self.aliases if uri in (m.uri, config.uri)}
        self.versions: tuple[str | None, ...] = tuple(in_use.get(uri) for uri in self.aliases)
        steps = () if config.uri else config.declared().steps
        keyed = [step.uri for step in steps if isinstance(step, KeyedStep) and step.uri is not None]
        self.keyed = tuple(uri for uri in keyed if uri.startswith("models:/") and "@" in uri)
        start = tuple(PLACEHOLDER.split(uri)[0] for uri in self.keyed)
        self.keys = {m.uri: m.version for m in run.plan.models if start and m.uri.startswith(start)}
        self.problem: LakemillError | None = None
        self.unwritten_code: str | None = None  # of a problem that no run row has yet

    def apply(self, run: Run) -> Run:
        """Return the run with the models that its aliases stand for now, or the same run.

        Args:
            run: With the models in use.
        """
        if not self.aliases and not self.keyed:
            return run
        try:
            versions = tuple(alias_version(uri, run.config.registry) for uri in self.aliases)
            found = [versions_of_keys(uri, run.config.registry) for uri in self.keyed]
        except LakemillError as error:
            self._report(run, error, "the models in use stay")
            return run
        keys: dict[str, str | None] = {uri: version for one in found for uri, version in one.items()}
        if (versions, keys) == (self.versions, self.keys):
            return run
        changed = [uri for uri in {*keys, *self.keys} if keys.get(uri) != self.keys.get(uri)]
        self.versions, self.keys = (
            versions,
            keys,
        )  # also of a version that is refused: it is not tried again with every batch
        try:
            return self._changed(run)
        except LakemillError as error:
            named = [f"{uri} (version {version})" for uri, version in zip(self.aliases, versions, strict=True)]
            more = [f"{len(changed)} keys' models"] if changed else []
            self._report(run, error, f"{', '.join(named + more)} is not used, the models in use stay")
            return run

    def _changed(self, run: Run) -> Run:
        source = open_source(run.config, run.engine)
        resolved = with_thresholds(run.config, resolve_config(run.config), source, run.engine, run.tell)
        plan, schema = plan_for(run.config, resolved, source, run.engine, run.result.run_id)
        if plan.pipeline == run.plan.pipeline and _identities(plan) == _identities(run.plan):
            return run
        if lost := lost_fields(run.schema, schema):
            raise ModelError(
                "OUTPUT_SCHEMA",
                f"the new models' output differs from the one in use: {'; '.join(lost)}.",
                hint="a new version may only add outputs; give other outputs a job and a table of their own.",
            )
        try_plan(plan, source.rows.select(plan.source_columns).limit(TRIED_ROWS).to_arrow())
        shipped = run.engine.prepare(plan, source.snapshot)
        remember(run.config, plan.pipeline)
        run.tell(f"new models from the next batch on: {named_models(plan.models)}")
        run.result.pipeline_version = plan.pipeline.version
        self.problem = None
        return replace(run, plan=shipped, schema=schema)

    def _report(self, run: Run, error: LakemillError, outcome: str) -> None:
        if self.problem is None or str(error) != str(self.problem):
            run.tell(f"{outcome}: {error}")
            logger.warning("%s: %s", outcome, error)
            self.unwritten_code = error.code
        self.problem = error


def _identities(plan: PredictPlan) -> list[tuple[str | None, ...]]:
    return [(model.name, model.version, model.sha256) for model in plan.models]


def try_plan(plan: PredictPlan, rows: pa.Table) -> None:
    """Load a plan's models in this process and score a few rows.

    Args:
        plan: Not shipped yet.
        rows: With ``plan.source_columns``; may be empty.

    Raises:
        LakemillError: a model does not load or breaks its contract, or no row that reached the models got through.
    """
    scored = predict_whole(replace(plan, threads=0, task_metrics=False), rows)
    errors = [
        error for error in scored["error"].to_pylist() if error is None or error["stage"] in ("predict", "format")
    ]
    if errors and None not in errors:
        raise ModelError(errors[0]["code"], f"none of {len(errors)} rows got through: {errors[0]['message']}")
