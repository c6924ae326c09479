"""Commands that look after jobs: status, retry, undo, optimize and vacuum. ``app`` takes them into its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from lakemill.cli.options import Config, Json, Overrides, Registry, Wait
from lakemill.cli.output import console, finish, tell

if TYPE_CHECKING:
    from lakemill.config.predict import PredictConfig


def status(config: Config = None, overrides: Overrides = None, as_json: Json = False) -> int:
    """What a job did last, how far behind its source it is, and its errors."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.status import job_status

    found = job_status(PredictConfig.load(config, overrides or ()))
    return finish(found.summary(), found.to_dict(), as_json=as_json)


def retry(
    config: Config = None,
    overrides: Overrides = None,
    registry: Registry = None,
    wait: Wait = False,
    as_json: Json = False,
) -> int:
    """Score the rows with errors again."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.redo import retry_errors

    job = PredictConfig.load(config, overrides or (), registry=registry)
    result = retry_errors(job, progress=tell, wait=wait)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


def undo(
    run_id: Annotated[str, typer.Argument(help="As in metadata.run_id; `lakemill status` lists the last runs.")],
    config: Config = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> int:
    """Delete what a run wrote; the next run scores it again. What the run had replaced is not restored."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.redo import undo_run

    rows = undo_run(PredictConfig.load(config, overrides or ()), run_id, progress=tell)
    return finish(f"{rows:,} predictions of run {run_id} deleted", {"rows": rows}, as_json=as_json)


def optimize(
    table: Annotated[str | None, typer.Argument(help="Delta table of images or predictions.")] = None,
    config: Config = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> int:
    """Compact a table's small files, or those of all tables that a predict job writes; jobs may run meanwhile."""
    from lakemill.predict.upkeep import optimize_tables

    facts = optimize_tables(_tables(table, config, overrides))
    return finish(f"compacted {', '.join(facts)}", facts, as_json=as_json)


def vacuum(
    table: Annotated[str | None, typer.Argument(help="Delta table.")] = None,
    config: Config = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> int:
    """Delete files that no version of the last 7 days (or the table's own retention) needs."""
    from lakemill.predict.upkeep import vacuum_tables

    facts = vacuum_tables(_tables(table, config, overrides))
    return finish(f"vacuumed {', '.join(facts)}", facts, as_json=as_json)


def _tables(table: str | None, config: Config, overrides: Overrides) -> list[str]:
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.upkeep import job_tables

    return [table] if table else job_tables(PredictConfig.load(config, overrides or ()))


def start_fast(job: PredictConfig) -> None:
    """Have Java compile less where the command ends before its full compiler would have paid."""
    from lakemill.predict.before_engine import is_small

    if job.engine.name == "spark" and is_small(job.source.table):
        os.environ.setdefault("LAKEMILL_FAST_START", "1")


def make_room(job: PredictConfig, *, reset: bool, yes: bool) -> None:
    """Ask before what is there is deleted: all that a job did, which is done at once, or a whole table, by the run."""
    if not yes:
        what = (
            f"deletes all predictions of the job '{job.name}' in {job.output.table}, and its progress"
            if reset
            else f"overwrites all of {job.output.table}, also what other jobs or people wrote there"
        )
        console.print(f"This {what}.", markup=False)
        typer.confirm("Start over?" if reset else "Replace the table?", abort=True, err=True)
    if reset:
        from lakemill.predict.redo import reset_job

        tell(f"deleted {reset_job(job, progress=tell)} predictions")


COMMANDS = (status, retry, undo, optimize, vacuum)
