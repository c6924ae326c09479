"""The ways through a source: what is new in a commit for each slice, or a part of it in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lakemill.engines.engine import Watch
from lakemill.engines.relations import Rows, Scored
from lakemill.engines.sql import all_equal
from lakemill.predict.commits import commit
from lakemill.predict.incremental import Slices, following, is_up_to_date
from lakemill.predict.keys import check_keys
from lakemill.predict.quarantine import write_quarantine
from lakemill.predict.resuming import (
    changed_by,
    check_job,
    check_table,
    note_source,
    note_whole,
    truth_of,
    whole_position,
)
from lakemill.predict.run import FAILED, Origin, Run, own_rows, rows_of_run
from lakemill.predict.upserts import run_change_column
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.plan import SourcePosition


def run_full(run: Run) -> None:
    """Score all rows of the source's version, and replace the job's own rows of the output by them, in one commit."""
    config, engine = run.config, run.engine
    own_or_all = None if run.replaces_table else own_rows(config)

    def write(scored: Scored) -> bool:
        return run.state.commit(
            lambda own: engine.replace(scored, config.output.table, own_or_all, own),
            is_needed=not scored.is_empty,
            looks=False,
        )

    has_versions = run.source.snapshot.kind == "delta"
    version, position = (run.source.snapshot.version, whole_position(run)) if has_versions else (None, None)
    batch = commit(run, run.source.rows, write, anew=True, keep=False, source_version=version, position=position)
    run.result.add(batch, None, version)
    run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
    write_quarantine(engine, config, rows_of_run(run.result.run_id))
    if has_versions:
        note_whole(run)


def run_incremental(run: Run) -> None:
    """Score what was added to the source since the job's last run.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
        RunError: ``SOURCE_CHANGED`` if the source had rows changed or deleted since.
    """
    if run.config.source.change_column is not None:
        run_change_column(run)
        return
    if is_up_to_date(run):
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
    check_table(run)
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
    """Score the rows that have no prediction of this pipeline's version, in one commit.

    Every row has one then, and incremental runs go on from there; those that follow changes look for themselves which
    predictions are of an earlier state of their row. Where rows were changed or deleted and the job only appends,
    predictions of what was there before stay, and incremental runs still say so.
    """
    check_job(run)
    is_whole = run.config.source.changes == "append"
    if is_whole and (version := changed_by(run, truth_of(run))) is not None:
        is_whole = False
        run.tell(
            f"version {version} of the source changed or deleted rows: predictions of what was there before stay, and "
            "incremental runs go on after mode: full"
        )
    scored = run.predictions(all_equal({"metadata.pipeline_version": run.result.pipeline_version}))
    check_keys(run.source.rows, run.source.key, run.config.source.table)  # a second row has a prediction by its key
    _replace(run, run.source.rows.without(scored, run.source.key), position=whole_position(run) if is_whole else None)
    if is_whole:
        note_whole(run)


def run_retry(run: Run) -> None:
    """Score the rows whose prediction is an error again; how far incremental runs are stays as it is."""
    check_table(run)
    failed = run.predictions(FAILED)
    _replace(run, run.source.rows.only(failed, run.source.key))


def _replace(run: Run, rows: Rows, *, replaces: str | None = None, position: SourcePosition | None = None) -> None:
    config, result, engine = run.config, run.result, run.engine
    source_version = run.source.snapshot.version
    if config.source.changes == "append":  # rows that are gone from the source may have left predictions with a key
        there = run.predictions().only(rows, run.source.key)
        hint = "mode: full replaces the job's predictions; a key that tells all rows apart lets this mode find them."
        check_keys(there, run.source.key, config.output.table, what="predictions", hint=hint)

    def write(scored: Scored) -> bool:
        if not scored.rows and replaces is None:
            return True
        output, key = config.output.table, run.source.key
        return run.state.commit(
            lambda own: engine.merge(scored, output, key, own, own=run.own, replaces=replaces),
            is_needed=bool(scored.rows),
        )

    origin: Origin = {"source_version": source_version, "position": position}
    note_source(run)
    batch = commit(run, rows, write, anew=replaces is not None, by_key=True, **origin)
    if batch.rows or replaces:
        result.add(batch, None, source_version)
        run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
        write_quarantine(engine, config, rows_of_run(result.run_id))


MODES: Mapping[str, Callable[[Run], None]] = {
    "incremental": run_incremental,
    "full": run_full,
    "where": run_where,
    "missing": run_missing,
}
