"""One batch, one table, one commit: scored rows are judged, then written to the output in a single transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from typing import Unpack

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, Layout, opened
from lakemill.engines.output_rules import rule_problems
from lakemill.engines.relations import Rows, Scored
from lakemill.engines.schemas import lacks_fields, unlike_fields, widened
from lakemill.engines.table_names import not_delta
from lakemill.predict.keys import check_keys
from lakemill.predict.ownership import check_predictions
from lakemill.predict.run import Committed, Origin, Run
from lakemill_udfs.errors import TableError, TooManyErrorsError

MOST_BOUNDED = 32
"""Columns that Delta keeps bounds of by itself."""


def commit(
    run: Run,
    rows: Rows,
    write: Callable[[Scored], bool],
    *,
    anew: bool = False,
    by_key: bool = False,
    keep: bool = True,
    **origin: Unpack[Origin],
) -> Committed:
    """Score rows once, judge the share of errors, and write them in one commit.

    Args:
        run: What it needs.
        rows: Of the source.
        write: Makes the commit, if there is something to write; returns whether it made one.
        anew: Whether ``deduplicate`` takes over no earlier result.
        by_key: Whether ``write`` finds rows by their key, which must then tell them apart.
        keep: Whether ``write`` looks at the rows before it writes them, or finds those to replace by them.
        **origin: Completes the rows' provenance.

    Returns:
        What was written; no rows if the transaction was there already.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``; nothing was written.
        TableError: ``KEY_NULL`` or ``KEY_NOT_UNIQUE``; nothing was written.
        RunError: ``COMMIT_CONFLICT``.
    """
    with judged(run, rows, anew=anew, keep=keep or by_key, **origin) as scored:
        if by_key and scored.rows:
            check_keys(scored, run.source.key, run.config.source.table)
        made = write(scored)
        return Committed(scored.rows, scored.rows_error, scored.tasks) if made else Committed(tasks=scored.tasks)


@contextmanager
def judged(
    run: Run, rows: Rows, *, anew: bool = False, keep: bool = True, **origin: Unpack[Origin]
) -> Iterator[Scored]:
    """Score rows once, keep them while the context lasts, and judge the share of errors.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``.
    """
    most = run.config.quarantine.max_ratio
    with run.scored(rows, anew=anew, keep=keep or most is not None, **origin) as scored:
        judge(scored, most)
        yield scored


def judge(batch: Scored, max_ratio: float | None) -> None:
    """Stop a batch that is failing wholesale.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS`` if the share of rows with errors is above ``max_ratio``.
    """
    if max_ratio is not None and batch.rows and batch.rows_error / batch.rows > max_ratio:
        raise TooManyErrorsError(
            "TOO_MANY_ERRORS",
            f"{batch.rows_error} of {batch.rows} rows have errors ({batch.rows_error / batch.rows:.1%}); "
            f"quarantine.max_ratio allows {max_ratio:.1%}. Nothing of this batch was written.",
            hint="`lakemill predict --limit 20` shows the errors; mend the source or raise the ratio.",
        )


def prepare_output(engine: Engine, config: PredictConfig, schema: pa.Schema, *, replaces_table: bool = False) -> bool:
    """Make the output if there is none, and refuse one that the rows do not fit, before anything is scored.

    Columns, outputs and checks that the table lacks are added to it, and earlier rows have null there; a carried column
    that is wider in the rows, as the source's became, is widened. What only the
    table has, of another job or added by somebody, stays, and is null in the rows to come.

    Args:
        engine: Where the job runs.
        config: The job.
        schema: Of the rows to come.
        replaces_table: The table is overwritten whole, whatever it is.

    Returns:
        Whether the table was made.

    Raises:
        TableError: ``OUTPUT_NOT_OURS`` if the output or the quarantine is no predictions table, ``OUTPUT_SCHEMA`` if a
            column has another type there, ``OUTPUT_CONSTRAINT`` or ``OUTPUT_APPEND_ONLY`` if its own rules forbid it,
            ``OUTPUT_NOT_WRITABLE`` if it cannot be made.
    """
    quarantine = None if config.quarantine.table is None else engine.snapshot(config.quarantine.table)
    if quarantine is not None:
        check_output("quarantine.table", quarantine.table, quarantine.schema, schema)
    table = config.output.table
    there = engine.snapshot(table)
    if there is not None:
        if there.kind != "delta":
            raise not_delta(table, there.kind)
        if not replaces_table:
            check_output("output.table", table, there.schema, schema)
            for problem in rule_problems(there, schema, replaces=_replaces(config)):
                raise problem
            if wider := widened(there.schema, schema):
                engine.widen(table, wider)
                there = opened(engine, table)
            if lacks_fields(there.schema, schema):
                engine.add_fields(table, schema)
        return False
    try:
        return engine.make(table, schema, _layout(schema))
    except TableError as error:
        raise TableError(
            "OUTPUT_NOT_WRITABLE",
            f"the output cannot be made: {error.message}",
            hint="check its path and permissions.",
        ) from error


def _layout(schema: pa.Schema) -> Layout:
    """Return the layout of a new output: Delta keeps bounds of the key, the carried columns and the time.

    Those stand first. Bounds of the structs' some twenty fields take Spark a third of its writing.
    """
    first = len(list(takewhile(lambda field: not pa.types.is_nested(field.type), schema)))
    return Layout(properties=(("delta.dataSkippingNumIndexedCols", str(min(first, MOST_BOUNDED))),))


def _replaces(config: PredictConfig) -> bool:
    """Return whether a job replaces or deletes rows, and not only adds some."""
    return config.mode in ("full", "where") or config.source.changes == "upsert" or config.rescore != "none"


def check_output(role: str, table: str, present: pa.Schema, wanted: pa.Schema) -> None:
    """Refuse a table that rows do not fit.

    Args:
        role: The configuration's key that names it.
        table: Its name.
        present: Its schema.
        wanted: Of the rows to come.

    Raises:
        TableError: ``OUTPUT_NOT_OURS`` or ``OUTPUT_SCHEMA``.
    """
    check_predictions(role, table, present)
    if unlike := unlike_fields(present, wanted):
        raise TableError(
            "OUTPUT_SCHEMA",
            f"{role} '{table}' has other columns than the rows to come: {'; '.join(unlike)}.",
            hint="give the new predictions a table of their own; or make this one anew, other jobs' rows too, with "
            "`lakemill predict --mode full --replace-table`, which asks first.",
        )


def now_utc() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
