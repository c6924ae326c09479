"""A predict job in one Python call: a table, a model and an output are enough, as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from os import PathLike
from typing import Literal, TypedDict

from lakemill.config.base import must_be
from lakemill.config.predict import PredictConfig
from lakemill.engines.table_names import job_name
from lakemill_udfs.arguments import as_text
from lakemill_udfs.errors import ConfigError


class ShortJob(TypedDict, total=False):
    """What ``predict_table`` takes instead of a ``PredictConfig``; the keys mean what they mean in its YAML.

    Args:
        source: Delta table to score, ``source.table``.
        model: ``models:/name@alias``, an MLflow model's folder or an ``.onnx`` file, ``pipeline.uri``.
        output: Delta table of predictions, ``output.table``.
        where: SQL predicate on the source, ``source.where``.
        key: Columns that tell rows apart, ``source.key``; by default ``path``.
        columns: Further columns that are carried into the predictions, ``source.columns``.
        mode: As in ``PredictConfig``.
        registry: MLflow tracking and registry URI.
        name: Names the job; by default the last part of the output's name.
    """

    source: str | PathLike[str]
    model: str | PathLike[str]
    output: str | PathLike[str]
    where: str
    key: str | Sequence[str]
    columns: str | Sequence[str]
    mode: Literal["incremental", "full", "where", "missing"]
    registry: str
    name: str


def as_config(config: PredictConfig | None, job: ShortJob) -> PredictConfig:
    """Return the configuration of a job that is given as one or in short, checked.

    Args:
        config: The whole of it, or None.
        job: Its parts, or nothing.

    Raises:
        ConfigError: ``CONFIG_INVALID``, also where both are given.
    """
    if config is not None:
        if job:
            raise ConfigError(
                "CONFIG_INVALID",
                f"a job is given as a configuration or as source, model and output; got both ({', '.join(job)}).",
                hint="PredictConfig.load(path, source__table=...) lays values over a file.",
            )
        must_be(config, PredictConfig)
        return config
    unknown = next((name for name in job if name not in ShortJob.__annotations__), None)
    if unknown is not None:
        close = get_close_matches(unknown, ShortJob.__annotations__, 1)
        raise ConfigError(
            "CONFIG_INVALID",
            f"arguments: unknown '{unknown}'; there are: {', '.join(ShortJob.__annotations__)}.",
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    output = as_text(job.get("output"))
    return PredictConfig.load(
        source__table=as_text(job.get("source")),
        source__where=job.get("where"),
        source__key=_names(job.get("key")),
        source__columns=_names(job.get("columns")),
        pipeline__uri=as_text(job.get("model")),
        output__table=output,
        mode=job.get("mode"),
        registry=job.get("registry"),
        name=job.get("name") or (job_name(output) if isinstance(output, str) and output else None),
    )


def _names(columns: str | Sequence[str] | None) -> list[str] | None:
    return [columns] if isinstance(columns, str) else list(columns) if columns is not None else None
