"""What a worker does with a piece: read it, score it, and write the result where the commit will find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lakemill.engines.local.pieces import Piece
from lakemill.engines.local.pool import Tell
from lakemill.engines.local.reading import Scan, read_piece
from lakemill.engines.local.writing import FileWriter, WrittenFile
from lakemill_udfs.execution import PipelineRunner
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.worker import predict_batches

TASK_COLUMN = "_task"


@dataclass(frozen=True)
class ScoredPiece:
    """What came of a piece; the rows are in the file.

    Args:
        file: The result; None if there are no rows.
        rows: How many.
        rows_error: Of those, rows with an error.
        tasks: What the task measured.
    """

    file: WrittenFile | None
    rows: int
    rows_error: int
    tasks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Scoring:
    """The work of ``pool.run``: pieces in, files of predictions out.

    Args:
        plan: What the driver worked out.
        scan: What is read: ``plan.source_columns``.
        schema: Of the predictions table.
        folder: Where results are written: the table's own, or one for results that are merged from there.
    """

    plan: PredictPlan
    scan: Scan
    schema: pa.Schema
    folder: str

    def prepare(self) -> None:
        """Load the models, which threads then share."""
        PipelineRunner(self.plan)

    def __call__(self, item: Piece, tell: Tell) -> ScoredPiece:
        """Score a piece."""
        rows = rows_error = 0
        tasks: list[Mapping[str, Any]] = []
        with FileWriter(self.folder, self.schema) as writer:
            for batch in predict_batches(self.plan, read_piece(item, self.scan)):
                rows += batch.num_rows
                rows_error += batch.num_rows - batch["error"].null_count
                if TASK_COLUMN in batch.schema.names:
                    tasks += [task for task in batch[TASK_COLUMN].drop_null().to_pylist()]
                writer.write(batch)
                tell(batch.num_rows)
        return ScoredPiece(writer.written, rows, rows_error, tuple(tasks))

    def smaller(self) -> Scoring | None:
        """Return the same with half the model batch."""
        if self.plan.batch_rows == 1:
            return None
        rows = self.plan.batch_rows // 2
        return replace(
            self,
            plan=replace(self.plan, batch_rows=rows, batch_bytes=max(1, self.plan.batch_bytes // 2)),
            scan=replace(self.scan, batch_rows=min(self.scan.batch_rows, rows)),
        )
