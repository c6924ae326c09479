"""Scoring that notes something of each row in its ``metadata``: the commit that made it, the digest of its input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.worker import predict_batches


@dataclass(frozen=True)
class Note:
    """What is noted.

    Args:
        column: Of the source.
        field: Of ``metadata``.
        digest: Note the SHA-256 of the value, not the value.
        beside: Columns that the digest depends on too.
    """

    column: str
    field: str
    digest: bool = False
    beside: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.column, *self.beside)

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the note of each row."""
        if not self.digest:
            return batch[self.column]
        content = digests(batch[self.column])
        if not self.beside:
            return content
        beside = batch.select(list(self.beside)).to_pylist()
        both = zip(content.to_pylist(), beside, strict=True)
        return digests(pa.array([None if own is None else own + repr(row) for own, row in both], pa.string()))


def digests(values: pa.Array) -> pa.Array:
    """Return the SHA-256 of bytes or texts, in hexadecimal digits; null for null."""
    raw = values.cast(pa.large_binary())
    return pa.array(
        [None if not value.is_valid else hashlib.sha256(value.as_buffer()).hexdigest() for value in raw], pa.string()
    )


def predict_noting(
    plan: PredictPlan, notes: tuple[Note, ...], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Score rows like ``predict_batches``, which keeps their order, and note something of each.

    Args:
        plan: What the driver worked out.
        notes: What is noted.
        batches: Rows with ``plan.source_columns`` and the notes' columns.
    """
    waiting: dict[Note, list[pa.Array]] = {note: [] for note in notes}

    def noted() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for note in notes:
                waiting[note].append(note.of(batch))
            yield batch

    for result in predict_batches(plan, noted()):
        values = {}
        for note in notes:
            known = pa.concat_arrays(waiting[note])
            waiting[note][:] = [known.slice(result.num_rows)]
            values[note.field] = known.slice(0, result.num_rows)
        place = result.schema.get_field_index("metadata")
        metadata = with_fields(result.column(place), values)
        yield result.set_column(place, result.schema.field(place), metadata)


def with_fields(struct: pa.StructArray, values: dict[str, pa.Array]) -> pa.StructArray:
    """Return structs, none of them null, with other values in some fields."""
    fields = list(struct.type)
    parts = [
        values[part.name].cast(part.type) if part.name in values else pc.struct_field(struct, [part.name])
        for part in fields
    ]
    return pa.StructArray.from_arrays(parts, fields=fields)


def predicting(plan: PredictPlan, notes: tuple[Note, ...] = ()) -> partial[Iterator[pa.RecordBatch]]:
    """Return what workers make of rows: predictions."""
    return partial(predict_noting, plan, notes) if notes else partial(predict_batches, plan)
