"""The report's section on several models: what ``lakemill compare`` says, where a job's pipeline has a step of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lakemill.predict.evidence import ModelEvidence, Share
from lakemill.predict.promotion import compare
from lakemill.report.layout import confusion, natural
from lakemill.report.values import Compared, Count, Differing
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.steps.kinds import TRAFFIC_KINDS

if TYPE_CHECKING:
    from lakemill.config.predict import PredictConfig
    from lakemill.engines.choice import SparkSession

logger = logging.getLogger(__name__)


def comparison(config: PredictConfig, spark: SparkSession | None) -> tuple[Compared, ...]:
    """Return what is known of each model; nothing of a pipeline of single models, or where nothing can be told.

    Args:
        config: The job.
        spark: The session that the caller was given.
    """
    pipeline = config.pipeline
    steps = () if pipeline.uri is not None else pipeline.declared().steps
    if not any(isinstance(step, TRAFFIC_KINDS) for step in steps):
        return ()
    try:
        found = compare(config, spark)
    except LakemillError as error:  # the registry may be gone, and the page is still of use
        logger.warning("the report does not compare the models: %s", error)
        return ()
    return tuple(map(_compared, found))


def _compared(model: ModelEvidence) -> Compared:
    return Compared(
        model.role,
        model.title,
        model.rows,
        model.speed.latency,
        model.speed.pace,
        str(model.errors),
        _text(model.correct),
        _text(model.agreement),
        tuple((label, str(share)) for label, share in sorted(model.by_label, key=lambda one: natural(one[0]))),
        confusion([Count(ours, theirs, rows, 0, None, "", "") for ours, theirs, rows in model.answers]),
        tuple(Differing(one.key, one.champion, one.challenger, one.truth) for one in model.differences),
    )


def _text(share: Share | None) -> str:
    return "" if share is None else str(share)
