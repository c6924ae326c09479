"""Rows with the same input are scored once, and each gets its row; what an earlier commit scored is taken over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import polars as pl
import pyarrow as pa

from lakemill.engines.local.frames import frame_of
from lakemill.engines.local.noting import Note, with_fields
from lakemill.engines.local.own_columns import FILE, PLACE, ROW, own_column
from lakemill.engines.local.rows import LocalRows
from lakemill.engines.reserved_columns import COMMIT_VERSION
from lakemill.engines.sql import all_equal
from lakemill_udfs.plan import PredictPlan

DIGEST = own_column("digest")


@dataclass(frozen=True)
class Inputs:
    """The rows to score, without their inputs.

    Args:
        plan: Says which columns a prediction carries.
        rows: Where they are.
        table: For each row its carried columns, ``DIGEST``, and where it is.
    """

    plan: PredictPlan
    rows: LocalRows
    table: pa.Table

    @classmethod
    def read(cls, plan: PredictPlan, rows: LocalRows, note: Note) -> Inputs:
        """Read the carried columns, and the digests of the inputs."""
        parts = []
        versions = [COMMIT_VERSION] if rows.has_versions else []
        columns = list(dict.fromkeys((*plan.passthrough, *note.columns, *versions)))
        for number, batch in rows.numbered(columns):
            carried = batch.select([*plan.passthrough, *versions])
            places = {
                DIGEST: note.of(batch),
                FILE: pa.repeat(pa.scalar(number), len(batch)),
                PLACE: batch.column(len(columns)),
            }
            parts.append(pa.Table.from_batches([carried]))
            for name, array in places.items():
                parts[-1] = parts[-1].append_column(name, array)
        fields = [rows.file_schema.field(name) for name in (*plan.passthrough, *versions)]
        named = [(DIGEST, pa.string()), (FILE, pa.int64()), (PLACE, pa.int64())]
        schema = pa.schema([*fields, *(pa.field(name, kind) for name, kind in named)])
        return cls(
            plan, rows, pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()
        )

    @property
    def frame(self) -> pl.DataFrame:
        """Where each row is, and its digest."""
        return frame_of(self.table.select([DIGEST, FILE, PLACE])).with_row_index(ROW)

    def without(self, known: pa.Table | None) -> Inputs:
        """Return the rows whose digest is not known."""
        if known is None:
            return self
        left = self.frame.join(frame_of(known.select([DIGEST])), on=DIGEST, how="anti")
        return Inputs(self.plan, self.rows, self.table.take(left[ROW].to_arrow()))

    def first(self) -> LocalRows:
        """Return one row of each digest; a row without one stands for itself."""
        group = pl.coalesce(pl.col(DIGEST), pl.format("row {}", pl.col(ROW)))
        firsts = self.frame.with_columns(__group=group).unique("__group", keep="first", maintain_order=True)
        files = firsts.partition_by(FILE, as_dict=True)
        return self.rows.at({int(key[0]): part[PLACE].to_numpy() for key, part in files.items()})

    def each(self, results: pa.RecordBatch) -> pa.RecordBatch:
        """Return the results of all rows whose digest the results have, in place of those of the first ones."""
        digest = results["metadata"].field("input_sha256")
        found = pl.DataFrame({DIGEST: pl.from_arrow(digest)}).with_row_index("__result").drop_nulls(DIGEST)
        pairs = self.frame.join(found, on=DIGEST, how="inner")
        alone = results.filter(digest.is_null())
        copies = results.take(pairs["__result"].to_arrow())
        carried = self.table.take(pairs[ROW].to_arrow()).combine_chunks()
        for name in self.plan.passthrough:
            place = copies.schema.get_field_index(name)
            column = carried[name].chunk(0) if carried[name].num_chunks else pa.array([], carried[name].type)
            copies = copies.set_column(place, copies.schema.field(place), column)
        if self.rows.has_versions:
            place = copies.schema.get_field_index("metadata")
            own = {"source_version": carried[COMMIT_VERSION].combine_chunks()}
            copies = copies.set_column(place, copies.schema.field(place), with_fields(copies["metadata"], own))
        both = pa.Table.from_batches([alone, copies]).combine_chunks()
        return both.to_batches()[0] if both.num_rows else alone


def known_results(inputs: Inputs, earlier: LocalRows) -> pa.Table | None:
    """Return earlier results of the same pipeline for digests that the rows have, one each, with ``DIGEST``."""
    plan = inputs.plan
    same = {"metadata.job": str(plan.provenance.job), "metadata.pipeline_version": plan.pipeline.version}
    where = f"{all_equal(same)} AND error IS NULL"
    wanted = inputs.frame.select(DIGEST).drop_nulls().unique()
    kept: list[pa.Table] = []
    for batch in earlier.where(where).batches():
        digest = pl.DataFrame({DIGEST: pl.from_arrow(batch["metadata"].field("input_sha256"))}).with_row_index(ROW)
        found = digest.unique(DIGEST, keep="first").join(wanted, on=DIGEST, how="semi")
        wanted = wanted.join(found, on=DIGEST, how="anti")
        if found.height:
            table = pa.Table.from_batches([batch]).take(found[ROW].to_arrow())
            kept.append(table.append_column(DIGEST, found[DIGEST].to_arrow().cast(pa.string())))
    return pa.concat_tables(kept) if kept else None


def copies_of(inputs: Inputs, known: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield rows with the results known for them: when and by what they were scored stays, the provenance is new."""
    provenance = asdict(inputs.plan.provenance)
    for batch in _aligned(known, schema).to_batches():
        metadata = batch["metadata"]
        own = {
            name: pa.array([value] * len(batch), metadata.type.field(name).type)
            for name, value in provenance.items()
            if metadata.type.get_field_index(name) >= 0
        }
        place = batch.schema.get_field_index("metadata")
        yield inputs.each(batch.set_column(place, batch.schema.field(place), with_fields(metadata, own)))


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the schema's columns and their fields, by name; null where it has none."""

    def aligned(array: pa.Array, kind: pa.DataType) -> pa.Array:
        if not pa.types.is_struct(kind):
            return array.cast(kind)
        parts = [
            aligned(array.field(part.name), part.type)
            if array.type.get_field_index(part.name) >= 0
            else pa.nulls(len(array), part.type)
            for part in kind
        ]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())

    whole = table.combine_chunks()
    arrays = [aligned(whole[field.name].chunk(0), field.type) for field in schema]
    return pa.table(arrays, schema=schema)
