"""Moving an alias to a new version, if what the tables say supports it, and writing down why."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import Engine
from lakemill.pipelines.registry import alias_version, mlflow_at
from lakemill.predict.commits import now_utc
from lakemill.predict.evidence import ModelEvidence, Share, find
from lakemill.predict.evidence_reader import gather
from lakemill.predict.needs import predict_needs
from lakemill.predict.preparing import resolve_config
from lakemill_udfs.errors import ConfigError, LakemillError, RunError

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession

REQUIREMENT = re.compile(r"\s*(rows|agreement|error_rate|accuracy|rows_per_second)\s*(>=|<=)\s*([0-9.]+)\s*")
SHARES = {"agreement": "agreement", "error_rate": "errors", "accuracy": "correct"}
COLUMNS = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),
        ("job", pa.string()),
        ("name", pa.string()),
        ("version", pa.string()),
        ("alias", pa.string()),
        ("version_before", pa.string()),
        ("moved", pa.bool_()),
        ("requirements", pa.list_(pa.string())),
        ("findings", pa.list_(pa.string())),
        ("evidence", pa.string()),
    ]
)
"""Of the table ``<output>_promotions``; ``evidence`` is JSON."""


@dataclass(frozen=True)
class Requirement:
    """What must be so: ``agreement>=0.95``.

    Args:
        metric: ``rows``, ``agreement``, ``error_rate``, ``accuracy`` or ``rows_per_second``.
        sign: ``>=`` or ``<=``.
        limit: Of the metric; but for ``rows``, its whole 95 % interval must be on that side.
    """

    metric: str
    sign: str
    limit: float

    @classmethod
    def read(cls, text: str) -> Requirement:
        """Return the requirement that a text says.

        Raises:
            ConfigError: ``PROMOTE_REQUIREMENT``.
        """
        found = REQUIREMENT.fullmatch(text)
        if found is None:
            raise ConfigError(
                "PROMOTE_REQUIREMENT",
                f"'{text}' is no requirement.",
                hint="rows, agreement, error_rate, accuracy or rows_per_second, then >= or <=: agreement>=0.95",
            )
        return cls(found[1], found[2], float(found[3]))

    def judge(self, model: ModelEvidence) -> tuple[bool, str]:
        """Return whether a model fulfils it, and what was found."""
        if self.metric in SHARES:
            share: Share | None = getattr(model, SHARES[self.metric])
            if share is None:
                return False, f"{self}: nothing in the table says it"
            low, high = share.interval
            return low >= self.limit if self.sign == ">=" else high <= self.limit, f"{self}: {share}"
        low, high = (model.rows, model.rows) if self.metric == "rows" else model.speed.rows_per_second_interval
        told = f"{model.rows:,}" if self.metric == "rows" else model.speed.pace
        return low >= self.limit if self.sign == ">=" else high <= self.limit, f"{self}: {told}"

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit:g}"


@dataclass(frozen=True)
class Promotion:
    """An alias that was moved.

    Args:
        name: Of the model.
        version: That it stands for now.
        alias: Which one.
        version_before: That it stood for; None if it was none.
        findings: What supports it.
    """

    name: str
    version: str
    alias: str
    version_before: str | None
    findings: tuple[str, ...]

    def summary(self) -> str:
        """Return it in lines."""
        before = f" (was version {self.version_before})" if self.version_before else ""
        return "\n".join([f"{self.name}@{self.alias} is version {self.version} now{before}", *self.findings])


def promote(config: PredictConfig, name: str, version: str, alias: str, requirements: Sequence[str]) -> Promotion:
    """Move an alias to a version if a job's predictions support it; either way, write down why.

    Args:
        config: The job whose pipeline runs the version, as a challenger or a control.
        name: Registered name.
        version: Registered version.
        alias: For example ``production``.
        requirements: One at least, as ``Requirement.read`` takes them.

    Raises:
        ConfigError: ``PROMOTE_REQUIREMENT``, ``EVIDENCE_NONE``.
        RunError: ``PROMOTE_REFUSED`` if one does not hold; the alias stays.
    """
    wanted = [Requirement.read(text) for text in requirements]
    if not wanted:
        raise ConfigError("PROMOTE_REQUIREMENT", "a promotion needs a requirement.", hint="--require 'agreement>=0.95'")
    engine = open_engine(None, predict_needs(config), config.engine)
    model = find(gather(config, resolve_config(config), engine), name, version)
    judged = [requirement.judge(model) for requirement in wanted]
    findings = tuple(("yes  " if holds else "NO   ") + text for holds, text in judged)
    moved = all(holds for holds, _ in judged)
    promotion = Promotion(name, version, alias, _before(config, name, alias), findings)
    if moved:
        _move(config, promotion)
    _write_down(engine, config, promotion, model, moved=moved, requirements=[str(one) for one in wanted])
    if not moved:
        raise RunError(
            "PROMOTE_REFUSED",
            f"{name}@{alias} stays at version {promotion.version_before}: " + "; ".join(findings) + ".",
            hint="gather more rows, or ask for less.",
        )
    return promotion


def _before(config: PredictConfig, name: str, alias: str) -> str | None:
    try:
        return alias_version(f"models:/{name}@{alias}", config.registry)
    except LakemillError as error:
        if error.code != "MODEL_ALIAS_UNKNOWN":
            raise
        return None


def _move(config: PredictConfig, promotion: Promotion) -> None:
    why = json.dumps({"job": config.name, "alias": promotion.alias, "findings": promotion.findings})
    with mlflow_at(config.registry) as mlflow:
        client = mlflow.MlflowClient()
        client.set_model_version_tag(promotion.name, promotion.version, "lakemill.promotion", why)
        client.set_registered_model_alias(promotion.name, promotion.alias, promotion.version)


def _write_down(
    engine: Engine,
    config: PredictConfig,
    promotion: Promotion,
    model: ModelEvidence,
    *,
    moved: bool,
    requirements: list[str],
) -> None:
    row: dict[str, Any] = {
        "time": now_utc(),
        "job": config.name,
        "name": promotion.name,
        "version": promotion.version,
        "alias": promotion.alias,
        "version_before": promotion.version_before,
        "moved": moved,
        "requirements": requirements,
        "findings": list(promotion.findings),
        "evidence": json.dumps(model.to_dict()),
    }
    table = table_names.sibling(config.output.table, "_promotions")
    engine.append(engine.given(pa.Table.from_pylist([row], COLUMNS)), table)


def compare(config: PredictConfig, spark: SparkSession | None = None) -> tuple[ModelEvidence, ...]:
    """Return what a job's predictions say of its pipeline's models.

    Args:
        config: The job.
        spark: The session; by default the active one, or a new one.

    Raises:
        ConfigError: ``EVIDENCE_NONE``.
    """
    return gather(config, resolve_config(config), open_engine(spark, predict_needs(config), config.engine))
