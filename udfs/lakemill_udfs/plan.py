"""``PredictPlan``: what the driver worked out for one run, and the schema of what comes out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from lakemill_udfs.files import NO_FILES, RowFiles
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.cascade import CascadeStep
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import TRAFFIC_KINDS
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import Branch, Wiring

GATHERED_BATCHES = 8
"""Batches whose rows for a second model, or for a key's, are put together: with 70 % sure, 8 give 2.4 full ones."""
MOST_GATHERED = 65_536
"""Rows that go through the steps together at most, where batches are put together."""

RESERVED = ("time", "in", "out", "anomaly", "error", "metadata", "_task")
"""Columns that a predictions table has of its own."""

ERROR = pa.struct([("stage", pa.string()), ("code", pa.string()), ("message", pa.string())])
POSITION = pa.struct([("table", pa.string()), ("version", pa.int64()), ("file", pa.int64()), ("snapshot", pa.bool_())])
METADATA = pa.struct(
    [
        ("job", pa.string()),
        ("run_id", pa.string()),
        ("query_id", pa.string()),
        ("batch_id", pa.int64()),
        ("source_version", pa.int64()),
        ("pipeline", pa.string()),
        ("pipeline_version", pa.string()),
        ("models", pa.list_(pa.struct([("name", pa.string()), ("version", pa.string()), ("sha256", pa.string())]))),
        ("elapsed_ns", pa.list_(pa.int64())),
        ("input_sha256", pa.string()),
        ("position", POSITION),
    ]
)
KEPT = ("query_id", "batch_id", "position")
"""Fields of ``metadata`` that stay as they are where a row is replaced by one that does not say them."""

TASK = pa.struct(
    [
        ("pid", pa.int64()),
        ("host", pa.string()),
        ("started", pa.timestamp("us", "UTC")),
        ("seconds", pa.float64()),
        ("rows", pa.int64()),
        ("rows_error", pa.int64()),
        ("bytes", pa.int64()),
        ("batches", pa.int64()),
        ("batch_rows", pa.int64()),
        ("scan_wait_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("preprocess_seconds", pa.float64()),
        ("predict_seconds", pa.float64()),
        ("format_seconds", pa.float64()),
        ("model_load_seconds", pa.float64()),
        ("model_warm_up_seconds", pa.float64()),
        ("models_loaded", pa.int64()),
        ("model_bytes", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("image_warnings", pa.int64()),
        ("models_dropped", pa.int64()),
        ("cascade_rows", pa.int64()),
        ("cascade_rows_then", pa.int64()),
    ]
)
"""What one task measured; stands in ``_task`` of the task's last row and is null in all others."""


@dataclass(frozen=True)
class SourcePosition:
    """Up to where a batch goes in its source: all rows before it are in the predictions once the batch is.

    Args:
        table: Delta's id of the source.
        version: Of the source.
        file: Last file of that version that the batch holds, counted from 0; -1 where it holds none, and all earlier
            versions are done.
        snapshot: Whether the files are those of the whole table at ``version``; else those that its commit added.
    """

    table: str
    version: int
    file: int
    snapshot: bool


@dataclass(frozen=True)
class Provenance:
    """Where a run's rows come from; the same in each of its rows.

    Args:
        job: Name of the job.
        run_id: Of this start of the job.
        query_id: Of the streaming checkpoint; None in plain batches.
        batch_id: Of the micro-batch; None in plain batches.
        source_version: Version of the source table that the batch ends with.
        pipeline: Name of the pipeline: its URI, or the job's name.
        position: Up to where the batch goes in the source; None if it says nothing of how far the job is.
    """

    job: str | None = None
    run_id: str | None = None
    query_id: str | None = None
    batch_id: int | None = None
    source_version: int | None = None
    pipeline: str | None = None
    position: SourcePosition | None = None


@dataclass(frozen=True)
class PredictPlan:
    """The only thing that is pickled to executors.

    Args:
        pipeline: With models' versions resolved.
        models: One for each ``ModelStep``, in order.
        wiring: What feeds what.
        passthrough: Key and carried columns.
        batch_rows: Rows of one model batch at most.
        batch_bytes: Bytes of one batch's source columns at most.
        threads: Threads of a model inside one task; 0 leaves the runtime's default.
        device: ``auto``, ``cpu`` or ``cuda``.
        parts: Which of ``time``, ``in``, ``out`` and ``anomaly`` are written.
        provenance: Of the run and batch.
        task_metrics: Whether ``_task`` is written.
        archives: The zip that was shipped, or the folder here, that holds a function's module, by ``module:function``.
        files: Which files rows may name by their path.
        challengers: Of the pipeline's shadow step: score these alone and write nothing but their columns; None for a
            whole pass.
        is_light: Whether ``metadata`` has only what differs from row to row, the driver adds ``constant_metadata``; and
            ``_task`` is JSON, as a struct without values takes 170 bytes of each row in Arrow.
    """

    pipeline: Pipeline
    models: tuple[ModelSpec, ...]
    wiring: Wiring
    passthrough: tuple[str, ...] = ()
    batch_rows: int = 32
    batch_bytes: int = 64 * 2**20
    threads: int = 1
    device: str = "auto"
    parts: tuple[str, ...] = ("time", "out", "anomaly")
    provenance: Provenance = Provenance()
    task_metrics: bool = False
    archives: tuple[tuple[str, str], ...] = ()
    files: RowFiles = NO_FILES
    challengers: tuple[str, ...] | None = None
    is_light: bool = False

    @property
    def has_traffic(self) -> bool:
        """Whether models differ from row to row."""
        return any(isinstance(step, TRAFFIC_KINDS) for step in self.pipeline.steps)

    @property
    def constant_metadata(self) -> dict[str, Any]:
        """What is the same in the ``metadata`` of each row, by field."""
        origin = self.provenance
        models = [{"name": model.name, "version": model.version, "sha256": model.sha256} for model in self.models]
        return {
            "job": origin.job,
            "run_id": origin.run_id,
            "query_id": origin.query_id,
            "batch_id": origin.batch_id,
            "source_version": origin.source_version,
            "pipeline": origin.pipeline,
            "pipeline_version": self.pipeline.version,
            **({} if self.has_traffic else {"models": models}),
            "position": None if origin.position is None else asdict(origin.position),
        }

    @property
    def metadata_type(self) -> pa.StructType:
        """Type of ``metadata``."""
        if not self.is_light:
            return METADATA
        return pa.struct([field for field in METADATA if field.name in ("elapsed_ns", *self._own_models)])

    @property
    def task_type(self) -> pa.DataType:
        """Type of ``_task``."""
        return pa.string() if self.is_light else TASK

    @property
    def _own_models(self) -> tuple[str, ...]:
        return ("models",) if self.has_traffic else ()

    @property
    def pass_rows(self) -> int:
        """Rows that go through the steps together: several batches where some are gathered into full ones."""
        is_gathered = any(isinstance(step, CascadeStep | KeyedStep) for step in self.pipeline.steps)
        gathered = min(self.batch_rows * GATHERED_BATCHES, MOST_GATHERED)
        return max(self.batch_rows, gathered) if is_gathered else self.batch_rows

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every source column that the worker needs, once each."""
        return tuple(dict.fromkeys((*self.passthrough, *self.wiring.raw_columns, *self.input_columns)))

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns of ``in``: the tensors' columns and their dimensions; images' bytes never."""
        names = [name for column in self.wiring.columns for name in (column.spec.name, *column.dims)]
        return tuple(dict.fromkeys(names))

    @property
    def out_type(self) -> pa.StructType:
        """Type of ``out``."""
        return pa.struct([tensor_field(spec) for spec in self.wiring.outputs])

    @property
    def branch_types(self) -> dict[str, pa.StructType]:
        """Types of the columns of a shadow step's challengers, ``out_<name>``, which are written with ``out``."""
        return {
            f"out_{branch.name}": pa.struct([*map(tensor_field, branch.outputs), pa.field("error", ERROR)])
            for branch in (self.branches if "out" in self.parts else ())
        }

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What follows from each challenger that is scored."""
        every = self.wiring.branches
        return every if self.challengers is None else tuple(one for one in every if one.name in self.challengers)

    @property
    def anomaly_type(self) -> pa.StructType:
        """Type of ``anomaly``."""
        return pa.struct([("count", pa.int32()), *((check.name, pa.bool_()) for check in self.pipeline.checks)])


def tensor_field(spec: TensorSpec) -> pa.Field:
    """Return the Arrow field of an output; every one may be null, as a row may have failed."""
    return pa.field(spec.name, spec.arrow_type(), metadata=spec.metadata())
