"""One batch, one table, one commit: scored rows are judged, then written to the output in a single transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lakemill.config.predict import PredictConfig
from lakemill.engines.engine import Engine, Rows, Scored, Transaction, opened
from lakemill.engines.schemas import lost_fields, type_text
from lakemill.predict.run import Committed, Run
from lakemill_udfs.errors import TableError, TooManyErrorsError


def commit(run: Run, rows: Rows, write: Callable[[Scored], bool], *, anew: bool = False, **origin: Any) -> Committed:
    """Score rows once, judge the share of errors, and write them in one commit.

    Args:
        run: What it needs.
        rows: Of the source.
        write: Makes the commit, if there is something to write; returns whether it made one.
        anew: Whether ``deduplicate`` takes over no earlier result.
        **origin: Completes the rows' provenance.

    Returns:
        What was written; no rows if the transaction was there already.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``; nothing was written.
        RunError: ``COMMIT_CONFLICT``.
    """
    with judged(run, rows, anew=anew, **origin) as scored:
        made = write(scored)
        return Committed(scored.rows, scored.rows_error, scored.tasks) if made else Committed(tasks=scored.tasks)


@contextmanager
def judged(run: Run, rows: Rows, *, anew: bool = False, **origin: Any) -> Iterator[Scored]:
    """Score rows once, keep them while the context lasts, and judge the share of errors.

    Raises:
        TooManyErrorsError: ``TOO_MANY_ERRORS``.
    """
    with run.scored(rows, anew=anew, **origin) as scored:
        judge(scored, run.config.quarantine.max_ratio)
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


def prepare_output(engine: Engine, table: str, schema: pa.Schema, *, replace: bool) -> bool:
    """Make the output if there is none, and refuse one that the rows do not fit, before anything is scored.

    Outputs and checks that a new model or pipeline has are added to a table that fits otherwise; earlier rows have null
    there.

    Args:
        engine: Where the job runs.
        table: The output.
        schema: Of the rows to come.
        replace: The table is overwritten anyway, so its schema does not matter.

    Returns:
        Whether the table was made.

    Raises:
        TableError: ``OUTPUT_SCHEMA`` if the table has other columns, ``OUTPUT_NOT_WRITABLE`` if it cannot be made.
    """
    there = engine.snapshot(table)
    if there is not None:
        if not replace:
            check_output(table, there.schema, schema)
            if lost_fields(schema, there.schema):
                engine.add_fields(table, schema)
        return False
    try:
        return engine.make(table, schema)
    except TableError as error:
        raise TableError(
            "OUTPUT_NOT_WRITABLE",
            f"the output cannot be made: {error.message}",
            hint="check its path and permissions.",
        ) from error


def check_output(table: str, present: pa.Schema, wanted: pa.Schema) -> None:
    """Refuse an output that rows do not fit.

    Args:
        table: Its name, for the message.
        present: Its schema.
        wanted: Of the rows to come.

    Raises:
        TableError: ``OUTPUT_SCHEMA``.
    """
    there = {field.name: type_text(field.type) for field in present}
    asked = {field.name: type_text(field.type) for field in wanted}
    if there.keys() != asked.keys() or lost_fields(present, wanted):
        raise TableError(
            "OUTPUT_SCHEMA",
            f"the output '{table}' has another schema: {_difference(asked, there)}.",
            hint="mode: full replaces the table; or give the new predictions a table of their own.",
        )


def _difference(wanted: Mapping[str, str], present: Mapping[str, str]) -> str:
    missing = [name for name in wanted if name not in present]
    extra = [name for name in present if name not in wanted]
    changed = [
        f"{name} is {present[name]}, expected {wanted[name]}"
        for name in wanted
        if name in present and present[name] != wanted[name]
    ]
    parts = (
        [f"it lacks {', '.join(missing)}"] * bool(missing)
        + [f"it has {', '.join(extra)} as well"] * bool(extra)
        + changed
    )
    return "; ".join(parts)


def write_quarantine(
    engine: Engine, config: PredictConfig, condition: str, transaction: Transaction | None = None
) -> None:
    """Copy the committed rows with errors into the quarantine table, with a transaction of their own.

    Args:
        engine: Where the job runs.
        config: The job; without ``quarantine.table`` nothing is done.
        condition: SQL that selects the batch in the predictions.
        transaction: Delta's ids.
    """
    if config.quarantine.table is not None:
        rows = engine.rows(opened(engine, config.output.table)).where(condition).where("error IS NOT NULL")
        engine.append(rows, config.quarantine.table, transaction)


def now_utc() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
