"""The ways through a source: what is new in a commit for each micro-batch, or a part of it in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint, check_identity, job_identity
from lakemill.engines.delta_log import SourceLog
from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES
from lakemill.engines.spark.merge import merge
from lakemill.engines.spark.micro_batches import start_query, stream_failure
from lakemill.engines.sql import sql_text
from lakemill.predict.commits import commit, write_quarantine
from lakemill.predict.upserts import run_change_column
from lakemill_udfs.errors import ConfigError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame

    from lakemill.config.predict import PredictConfig
    from lakemill.predict.run import Run


def run_full(run: Run) -> None:
    """Score all rows of the source's version into a new version of the output."""
    config, checkpoint = run.config, Checkpoint.of(run.config)
    version = (
        tables.version(run.spark, config.source.table)
        if not isinstance(config.source.version, int)
        else config.source.version
    )
    scored = run.scored(run.source.rows, anew=True, source_version=version)
    # The checkpoint goes first: a run that dies between the two must not leave progress over rows that are not there.
    batch = commit(
        scored,
        config,
        {"overwriteSchema": "true"},
        mode="overwrite",
        metrics=not config.engine.group_by,
        before_commit=checkpoint.remove,
    )
    run.result.add(batch, None, version)
    run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
    write_quarantine(run.spark, config, f"metadata.run_id = '{run.result.run_id}'", {})


def run_incremental(run: Run) -> None:
    """Score what was added to the source since the job's last run; an ``availableNow`` stream of Delta.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
        RunError: ``SOURCE_CHANGED`` if the source had rows changed or deleted since.
    """
    if run.config.source.change_column is not None:
        run_change_column(run)
        return
    if not run.is_new_output and is_up_to_date(run.config, run.source.key):
        return
    query, batches = start_query(run, availableNow=True)
    try:
        query.awaitTermination()
        while batches.rescore():
            pass
    except SPARK_FAILURES as error:
        raise stream_failure(error, batches, run.config) from error
    finally:
        query.stop()


def is_up_to_date(config: PredictConfig, key: tuple[str, ...]) -> bool:
    """Return whether there is nothing to do for sure, without Spark and whatever the length of the source's log.

    Starting a stream takes seconds, and more where the log has thousands of commits.

    Args:
        config: The job.
        key: Columns that tell the source's rows apart.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if the checkpoint was made for another source, predicate, key or output.
    """
    checkpoint = Checkpoint.of(config)
    if config.rescore != "none" or not table_names.is_path(config.source.table) or checkpoint.damage():
        return False
    known = checkpoint.identity()
    if known is None:
        return False
    check_identity(known, job_identity(config, key))
    finished = checkpoint.finished()
    return finished is not None and SourceLog(table_names.location(config.source.table)).ends_with(*finished)


def run_where(run: Run) -> None:
    """Score the rows of ``source.where`` and replace the job's predictions that it holds for, in one commit.

    It is a MERGE and not Delta's ``replaceWhere``: a row that came to fulfil the predicate since it was scored replaces
    its prediction, which ``replaceWhere`` would leave beside the new one.

    Raises:
        ConfigError: ``WHERE_NOT_CARRIED`` if the predicate uses a column that the predictions lack.
    """
    from pyspark.errors import AnalysisException

    config = run.config
    assert config.source.where is not None  # noqa: S101 -- the configuration's own check
    carried = (*run.source.key, *config.source.carried)
    try:
        _ = tables.read(run.spark, config.output.table).select(*carried).where(config.source.where).schema
    except AnalysisException as error:
        raise ConfigError(
            "WHERE_NOT_CARRIED",
            f"mode: where needs source.where on key and carried columns ({', '.join(carried)}): "
            f"{config.source.where!r} uses another.",
            hint="name its columns in source: {columns: [...]} and run once with mode: full.",
        ) from error
    _replace(run, run.source.rows, replaces=config.source.where)


def run_missing(run: Run) -> None:
    """Score the rows that have no prediction of this pipeline's version, in one commit."""
    key, config = list(run.source.key), run.config
    scored = tables.read(run.spark, config.output.table).where(
        f"metadata.job = {sql_text(config.name)} AND metadata.pipeline_version = '{run.result.pipeline_version}'"
    )
    _replace(run, run.source.rows.join(scored.select(*key).distinct(), on=key, how="left_anti"))


def run_retry(run: Run) -> None:
    """Score the rows whose prediction is an error again; how far incremental runs are stays as it is."""
    key, config = list(run.source.key), run.config
    failed = tables.read(run.spark, config.output.table).where(
        f"metadata.job = {sql_text(config.name)} AND error IS NOT NULL"
    )
    rows = run.source.rows.join(failed.select(*key).distinct(), on=key, how="left_semi")
    _replace(run, rows, keeps_progress=True)


def _replace(run: Run, rows: DataFrame, *, replaces: str | None = None, keeps_progress: bool = False) -> None:
    config, result = run.config, run.result
    source_version = tables.version(run.spark, config.source.table)
    # The output's version as it was when the rows were chosen: of two such runs at once only one is committed.
    transaction = {
        "txnAppId": f"{config.name}/{result.mode}",
        "txnVersion": str(tables.version(run.spark, config.output.table)),
    }
    scored = run.scored(rows, anew=replaces is not None, source_version=source_version)
    before = None if keeps_progress else Checkpoint.of(config).remove
    batch = merge(scored, config, run.source.key, transaction, replaces=replaces, before_commit=before)
    if batch.tasks and not batch.rows:
        raise RunError(
            "RUN_OVERTAKEN",
            f"another run of '{config.name}' was committed to '{config.output.table}' first; this one wrote nothing.",
            hint="run it again.",
        )
    if batch.rows or replaces:
        result.add(batch, None, source_version)
        run.tell(f"committed {batch.rows} rows, {batch.rows_error} with errors")
        write_quarantine(run.spark, config, f"metadata.run_id = '{result.run_id}'", {})


MODES: Mapping[str, Callable[[Run], None]] = {
    "incremental": run_incremental,
    "full": run_full,
    "where": run_where,
    "missing": run_missing,
}
