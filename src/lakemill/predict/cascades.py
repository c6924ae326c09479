"""Cascades of a job: a threshold is learnt once for a pair of models, on rows of the source, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine
from lakemill.engines.schemas import tensors_of
from lakemill.pipelines.calibration import Learnt, calibrate
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved
from lakemill.predict.kept_notes import read_kept, write_kept
from lakemill.predict.source import Source
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.steps.routing import fraction, key_texts
from lakemill_udfs.worker import columns_of

KEPT = "cascade"

MOST_KEYS = 1_000_000
"""Keys that a sample is drawn from."""


def with_thresholds(
    config: PredictConfig, resolved: Resolved, source: Source, engine: Engine, tell: Callable[[str], None]
) -> Resolved:
    """Return a pipeline whose cascades know when their first model is sure.

    Args:
        config: The job.
        resolved: Its pipeline.
        source: What it scores.
        engine: Where it runs.
        tell: Gets a line of what was learnt.

    Raises:
        ConfigError: ``CASCADE_SAMPLE`` if no row got through both models; as ``make_plan``.
    """
    if not any(map(_is_open, resolved.pipeline.steps)):
        return resolved
    kept = read_kept(config, KEPT)
    known = tuple(_remembered(step, kept) for step in resolved.pipeline.steps)
    resolved = replace(resolved, pipeline=replace(resolved.pipeline, steps=known))
    open_steps = [step for step in known if isinstance(step, CascadeStep) and step.is_open]
    if not open_steps:
        return resolved
    sample = _sample(resolved, source, engine, max(step.sample_rows for step in open_steps))
    kinds = tensors_of(source.snapshot.schema)
    found, learnt = calibrate(resolved, kinds, columns_of(sample), sample.num_rows)
    for step, one in zip(open_steps, learnt, strict=True):
        kept[_name(step)] = one.threshold
        tell(f"cascade: {_said(step, one)}")
    write_kept(config, KEPT, kept)
    return found


def _is_open(step: Step) -> bool:
    return isinstance(step, CascadeStep) and step.is_open


def _said(step: CascadeStep, learnt: Learnt) -> str:
    return (
        f"the first model answers where its confidence is {learnt.threshold:.4g} or more: {learnt.answered} of "
        f"{learnt.rows} sampled rows, {learnt.disagreeing} of them otherwise than the second; with "
        f"{step.target['confidence']:.0%} confidence at most {learnt.bound:.2%} of all rows"
    )


def _name(step: CascadeStep) -> str:
    """Return what a threshold is kept under: the models' content, the target, and what confidence is."""
    parts = [model.sha256 for model in step.members.values()]
    told = json.dumps([*parts, dict(step.target), step.score, step.softmax, step.sample_rows], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _remembered(step: Step, kept: Mapping[str, float]) -> Step:
    if not isinstance(step, CascadeStep) or not step.is_open:
        return step
    return replace(step, threshold=kept.get(_name(step)))


def _sample(resolved: Resolved, source: Source, engine: Engine, rows: int) -> pa.Table:
    """Return rows of the source, drawn by a hash of their key, with the columns that the pipeline reads."""
    plan = make_plan(resolved, tensors_of(source.snapshot.schema), readable="any")
    keys = source.rows.select(source.key).limit(MOST_KEYS).to_arrow()
    drawn = _drawn(keys, source.key, rows)
    return source.rows.only(engine.given(drawn), source.key).select(plan.source_columns).to_arrow()


def _drawn(keys: pa.Table, names: Sequence[str], rows: int) -> pa.Table:
    texts = key_texts({name: keys[name].cast(pa.string()) for name in names}, names)
    order = sorted(range(len(texts)), key=lambda row: fraction(texts[row], "cascade"))
    return keys.take(pa.array(order[:rows], pa.int64()))


def saved(tasks: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what a run's cascades spared their second model, as a sentence; None without a cascade."""
    rows, then = (sum(task.get(name) or 0 for task in tasks) for name in ("cascade_rows", "cascade_rows_then"))
    return f"cascade: the first model answered {rows - then:,} of {rows:,} rows" if rows else None
