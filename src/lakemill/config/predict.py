"""``PredictConfig``: what a predict job is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lakemill.config.base import Bytes, EngineChoice, JobConfig, Strict, interval_seconds
from lakemill.config.ingest import IngestConfig
from lakemill.config.row_files import RowLimits
from lakemill.config.trust import NAMED, Trust
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import RESERVED
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import STEP_KINDS
from lakemill_udfs.steps.traffic import EnsembleStep, ShadowStep, SplitStep
from lakemill_udfs.tensors.spec import TensorSpec


class _Kinds(Strict):
    """One step in YAML: exactly one of its kinds."""

    image: ImageStep | None = None
    model: ModelStep | None = None
    python: PythonStep | None = None
    format: FormatStep | None = None
    split: SplitStep | None = None
    shadow: ShadowStep | None = None
    ensemble: EnsembleStep | None = None
    models: KeyedStep | None = None
    cascade: CascadeStep | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in STEP_KINDS) != 1:
            raise ValueError(f"a step is exactly one of {', '.join(STEP_KINDS)}")
        return self


class _Tensor(Strict):
    """A tensor in YAML."""

    dtype: str = "float32"
    shape: tuple[int | None, ...] = ()
    nullable: bool = False


class PipelineConfig(Strict):
    """A pipeline: ``uri`` of a logged pipeline or model, or ``steps`` and ``checks``.

    Args:
        uri: ``models:/digits@production``, an MLflow model's folder, an ``.onnx`` file.
        steps: In order.
        checks: Conditions on inputs and outputs; beside a ``uri`` they are added to its own.
        outputs: The steps' outputs that make up ``out``; by default those that no later step reads.
        inputs: What columns hold that do not say it themselves, or that may be null: ``{image: {dtype, shape}}``.
    """

    uri: str | None = None
    steps: tuple[_Kinds, ...] = ()
    checks: tuple[Check, ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: dict[str, _Tensor] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.uri is None) == (not self.steps):
            raise ValueError("give either 'uri' or 'steps'")
        return self

    def declared(self) -> Pipeline:
        """Return the pipeline that ``steps``, ``checks`` and ``outputs`` declare."""
        steps = [getattr(step, kind) for step in self.steps for kind in STEP_KINDS if getattr(step, kind) is not None]
        return Pipeline(tuple(steps), self.checks, self.outputs, self.tensors)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensors that ``inputs`` declares."""
        return tuple(TensorSpec(name, one.dtype, one.shape, one.nullable) for name, one in self.inputs.items())


class SourceConfig(Strict):
    """What is scored.

    Args:
        table: Path or catalog name of a Delta table.
        where: Any Spark SQL predicate on its columns.
        version: Version number or timestamp to score (``full`` runs only).
        key: Columns that tell rows apart; ``path`` if the table has one.
        columns: Further columns that are carried into the predictions.
        changes: What incremental runs do about rows that change. ``append`` stops at a commit that changes or deletes
            rows; ``upsert`` scores changed rows again and replaces their predictions, from the table's change feed or
            by ``change_column``.
        change_column: A column that differs whenever a row changed, for tables without a change feed; it is carried
            into the predictions.
        deleted: Whether ``upsert`` removes or keeps the predictions of rows that left the source.
    """

    table: str
    where: str | None = None
    version: Annotated[int, Field(ge=0, lt=2**63)] | str | None = None
    key: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    changes: Literal["append", "upsert"] = "append"
    change_column: str | None = None
    deleted: Literal["remove", "keep"] = "remove"

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that are carried into the predictions besides the key, once each."""
        return tuple(dict.fromkeys((*self.columns, *((self.change_column,) if self.change_column else ()))))

    @model_validator(mode="after")
    def _upsert_only(self) -> Self:
        if self.change_column is not None and self.changes != "upsert":
            raise ValueError("source.change_column needs source.changes: upsert")
        return self

    @model_validator(mode="after")
    def _not_reserved(self) -> Self:
        _check_not_reserved((*self.key, *self.carried))
        return self


def _check_not_reserved(names: Iterable[str]) -> None:
    # Names that differ only in letter case are one column to Delta.
    taken = [name for name in names if name.lower() in RESERVED]
    if taken:
        raise ConfigError(
            "COLUMN_RESERVED",
            f"column '{taken[0]}' cannot be carried: a predictions table has a column of that name.",
            hint="give it another name in the source (in letter case alone is not enough); reserved are: "
            + ", ".join(RESERVED),
        )


Part = Literal["*", "time", "in", "out", "anomaly", "metadata"]


def _parts(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class OutputConfig(Strict):
    """Where predictions go.

    Args:
        table: Path or catalog name of a Delta table; it is made if there is none.
        dataset: Which of ``time``, ``in``, ``out``, ``anomaly`` are written; ``*`` is all four.
        checkpoint: Folder of the incremental runs' progress; needed if ``table`` is a catalog name.
    """

    table: str
    dataset: Annotated[tuple[Part, ...], BeforeValidator(_parts, json_schema_input_type=tuple[Part, ...] | Part)] = (
        "time",
        "out",
        "anomaly",
    )
    checkpoint: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns asked for, in the table's order."""
        return tuple(part for part in ("time", "in", "out", "anomaly") if part in self.dataset or "*" in self.dataset)


def _trust(value: object) -> object:
    return {"models": value} if isinstance(value, str) else value


WrittenTrust = Annotated[Trust, BeforeValidator(_trust, json_schema_input_type=Trust | Literal["named", "pinned"])]
"""``Trust``, or the word for its ``models``."""


class QuarantineConfig(Strict):
    """What happens to rows with errors, besides standing in the predictions.

    Args:
        table: Also gets a copy of each committed batch's error rows.
        max_ratio: Largest share of rows with errors in a batch; above it the batch is not committed and the run ends
            with exit code 3.
    """

    table: str | None = None
    max_ratio: Annotated[float, Field(ge=0, le=1)] | None = None


class EngineConfig(EngineChoice):
    """How it runs.

    Args:
        name: ``local`` is this machine's processes, without Java; ``spark`` is Spark; ``auto`` takes Spark where there
            is a session, or something that only Spark can do, and else ``local``.
        workers: Of the local engine: ``threads`` share one copy of a model, ``processes`` have one each; ``auto``
            chooses by what the pipeline does.
        batch_rows: Rows of a model batch; ``auto`` works it out from the tensors' size.
        batch_bytes: Most bytes of source columns in a model batch.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; a device that is asked for and not there is an error.
        group_by: Score whole groups of these columns at once (``mode: full`` only).
        max_bytes_per_trigger: About how much of the source one incremental batch takes.
    """

    batch_rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    batch_bytes: Bytes = 64 * 2**20
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    group_by: tuple[str, ...] = ()
    max_bytes_per_trigger: Bytes = 2**30

    @field_validator("group_by")
    @classmethod
    def _not_reserved(cls, group_by: tuple[str, ...]) -> tuple[str, ...]:
        _check_not_reserved(group_by)
        return group_by


class PredictConfig(JobConfig):
    """A predict job.

    Args:
        source: What is scored.
        pipeline: How.
        output: Where to.
        quarantine: What happens to rows with errors.
        mode: ``incremental`` scores what is new since the last run; ``full`` everything, in place of its own rows;
            ``where`` the rows of ``source.where``, whose predictions are replaced; ``missing`` the rows that have no
            prediction of this pipeline's version.
        deduplicate: ``content`` scores rows with the same input once, and writes a row for each; ``full`` and ``where``
            take no result over from earlier commits.
        trigger: In a stream, how often it looks for new rows (``10 seconds``), or ``available_now``: score what is
            there and end. ``lakemill predict`` always does the latter.
        rescore: ``changed`` scores earlier rows again that other models scored, newest first, after the new rows.
        engine: How it runs.
        limits: What a row may make the job read.
        ingest: In a stream, an ingest job that fills the source table, run before each look.
        trust: What of models and logged pipelines may run as code.
    """

    name: str = "predict"
    source: SourceConfig
    pipeline: PipelineConfig
    output: OutputConfig
    quarantine: QuarantineConfig = QuarantineConfig()
    mode: Literal["incremental", "full", "where", "missing"] = "incremental"
    deduplicate: Literal["content"] | None = None
    trigger: str = "available_now"
    rescore: Literal["changed", "none"] = "none"
    engine: EngineConfig = EngineConfig()
    limits: RowLimits = RowLimits()
    ingest: IngestConfig | None = None
    trust: WrittenTrust = NAMED

    @field_validator("trigger")
    @classmethod
    def _known_trigger(cls, trigger: str) -> str:
        interval_seconds(trigger, once="available_now")
        return trigger

    @model_validator(mode="after")
    def _ingest_feeds_the_source(self) -> Self:
        if self.ingest is not None and self.ingest.output.table != self.source.table:
            raise ValueError(
                f"ingest.output.table ({self.ingest.output.table}) must be source.table ({self.source.table})"
            )
        return self

    @model_validator(mode="after")
    def _full_only(self) -> Self:
        if self.mode != "full" and self.source.version is not None:
            raise ValueError("source.version (time travel) needs mode: full")
        if self.mode != "full" and self.engine.group_by:
            raise ValueError("engine.group_by needs mode: full")
        if self.engine.group_by and self.deduplicate:
            raise ValueError("engine.group_by scores whole groups: it does not go with deduplicate")
        if self.mode == "where" and self.source.where is None:
            raise ValueError("mode: where needs source.where, the predicate whose predictions are replaced")
        return self
