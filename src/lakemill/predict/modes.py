"""The ways through a source: what is new in a commit for each slice, or a part of it in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lakemill.engines.engine import Transaction, Watch, opened
from lakemill.engines.relations import Rows, Scored
from lakemill.predict.commits import commit, write_quarantine
from lakemill.predict.incremental import Slices, following, is_up_to_date
from lakemill.predict.keys import check_keys
from lakemill.predict.progress import checkpoint_of
from lakemill.predict.run import Run, own_rows
from lakemill.predict.upserts import run_change_column
from lakemill_udfs.errors import ConfigError, RunError


def run_full(run: Run) -> None:
    """Score all rows of the source's version, and replace the job's own rows of the output by them, in one commit."""
    config, engine = run.config, run.engine
    own = None if run.replaces_table else own_rows(config)
    transaction = _transaction(run, "full")

    def write(scored: Scored) -> bool:
        # The checkpoint goes first: a run that dies between the two must not leave progress over rows that are not
        # there.
        checkpoint_of(config).remove()
        made = engine.replace(scored, config.output.table, own, transaction)
        return _landed(run, made or not scored.rows)

    version = run.source.snapshot.version if run.source.snapshot.kind == "delta" else None
    batch = commit(run, run.source.rows, write, anew=True, source_version=version)
    run.result.add(batch, None, version)
    run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
    write_quarantine(engine, config, f"metadata.run_id = '{run.result.run_id}'")


def run_incremental(run: Run) -> None:
    """Score what was added to the source since the job's last run.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
        RunError: ``SOURCE_CHANGED`` if the source had rows changed or deleted since.
    """
    if run.config.source.change_column is not None:
        run_change_column(run)
        return
    if not run.is_new_output and is_up_to_date(run.config, run.source.key):
        return
    followed, slices = following(run), Slices(run)
    run.engine.follow(followed, slices, Watch(drain=slices.rescore))


def run_where(run: Run) -> None:
    """Score the rows of ``source.where`` and replace the job's predictions that it holds for, in one commit.

    It is a MERGE and not Delta's ``replaceWhere``: a row that came to fulfil the predicate since it was scored replaces
    its prediction, which ``replaceWhere`` would leave beside the new one.

    Raises:
        ConfigError: ``WHERE_NOT_CARRIED`` if the predicate uses a column that the predictions lack.
    """
    config = run.config
    where = config.source.where
    assert where is not None  # noqa: S101 -- the configuration's own check
    carried = (*run.source.key, *config.source.carried)
    try:
        run.predictions().select(carried).where(where)
    except ConfigError as error:
        raise ConfigError(
            "WHERE_NOT_CARRIED",
            f"mode: where needs source.where on key and carried columns ({', '.join(carried)}); "
            f"{where!r} uses another.",
            hint="name its columns in source: {columns: [...]} and run once with mode: full.",
        ) from error
    # The predicate may hold for one of several rows with a key only, and the MERGE would replace the others' too.
    there = run.engine.rows(run.source.snapshot).only(run.source.rows, run.source.key)
    check_keys(there, run.source.key, config.source.table)
    _replace(run, run.source.rows, replaces=where)


def run_missing(run: Run) -> None:
    """Score the rows that have no prediction of this pipeline's version, in one commit."""
    scored = run.predictions(f"metadata.pipeline_version = '{run.result.pipeline_version}'")
    check_keys(run.source.rows, run.source.key, run.config.source.table)  # a second row has a prediction by its key
    _replace(run, run.source.rows.without(scored, run.source.key))


def run_retry(run: Run) -> None:
    """Score the rows whose prediction is an error again; how far incremental runs are stays as it is."""
    failed = run.predictions("error IS NOT NULL")
    _replace(run, run.source.rows.only(failed, run.source.key), keeps_progress=True)


def _replace(run: Run, rows: Rows, *, replaces: str | None = None, keeps_progress: bool = False) -> None:
    config, result, engine = run.config, run.result, run.engine
    source_version = run.source.snapshot.version
    transaction = _transaction(run, result.mode)

    def write(scored: Scored) -> bool:
        if not scored.rows and replaces is None:
            return True
        if not keeps_progress:
            checkpoint_of(config).remove()
        made = engine.merge(scored, config.output.table, run.source.key, transaction, own=run.own, replaces=replaces)
        return _landed(run, made or not scored.rows)

    batch = commit(run, rows, write, anew=replaces is not None, by_key=True, source_version=source_version)
    if batch.rows or replaces:
        result.add(batch, None, source_version)
        run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
        write_quarantine(engine, config, f"metadata.run_id = '{result.run_id}'")


def _transaction(run: Run, mode: str) -> Transaction:
    # The output's version as it was when the rows were chosen: of two such runs at once only one is committed.
    return Transaction(f"{run.config.name}/{mode}", opened(run.engine, run.config.output.table).version)


def _landed(run: Run, made: bool) -> bool:
    if not made:
        raise RunError(
            "RUN_OVERTAKEN",
            f"another run of '{run.config.name}' was committed to '{run.config.output.table}' first; "
            "this one wrote nothing.",
            hint="run it again.",
        )
    return True


MODES: Mapping[str, Callable[[Run], None]] = {
    "incremental": run_incremental,
    "full": run_full,
    "where": run_where,
    "missing": run_missing,
}
