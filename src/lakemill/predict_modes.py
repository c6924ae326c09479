"""The ways through a source: everything in one commit, or what is new in a commit for each micro-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakemill import tables
from lakemill.checkpoint import Checkpoint
from lakemill.commits import commit, write_quarantine
from lakemill.micro_batches import start_query, stream_failure
from lakemill.spark_errors import SPARK_FAILURES

if TYPE_CHECKING:
    from lakemill.predict import Run


def run_full(run: Run) -> None:
    """Score all rows of the source's version into a new version of the output."""
    config, checkpoint = run.config, Checkpoint.of(run.config)
    version = (
        tables.version(run.spark, config.source.table)
        if not isinstance(config.source.version, int)
        else config.source.version
    )
    scored = run.scored(run.source.rows, source_version=version)
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
    query, batches = start_query(run, availableNow=True)
    try:
        query.awaitTermination()
    except SPARK_FAILURES as error:
        raise stream_failure(error, batches, run.config) from error
    finally:
        query.stop()
