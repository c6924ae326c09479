"""Compaction and clean-up of tables. Neither breaks a running job, nor time travel within Delta's retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import Engine, opened
from lakemill.engines.needs import Needs
from lakemill_udfs.errors import TableError

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession


def job_tables(config: PredictConfig) -> list[str]:
    """Return the tables that a predict job writes."""
    output = config.output.table
    quarantine = [config.quarantine.table] if config.quarantine.table else []
    return [output, *quarantine, *(table_names.sibling(output, suffix) for suffix in table_names.MEASURES)]


def optimize_tables(names: Sequence[str], spark: SparkSession | None = None) -> dict[str, dict[str, int]]:
    """Compact tables; one that holds blobs keeps its layout, and one that is not there is left out.

    A running job's commit that conflicts is done again, and a stream reads nothing twice: compaction is marked as no
    change.

    Args:
        names: Paths or catalog names.
        spark: The session; by default the active one, or a new one.

    Returns:
        ``files_added``, ``files_removed`` and the ``version`` of each.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is none of them.
        RunError: ``COMMIT_CONFLICT``.
    """
    _check_one_is_there(names)
    engine = open_engine(spark, Needs("lakemill", writes=tuple(names)))
    return {name: engine.optimize(name) for name in _there(engine, names)}


def vacuum_tables(names: Sequence[str], spark: SparkSession | None = None) -> dict[str, dict[str, int]]:
    """Delete files that no version within the table's retention needs; Delta's default is 7 days.

    There is no shorter retention to ask for: it would take files from running jobs. A longer one, for time travel, is
    the table's property ``delta.deletedFileRetentionDuration``.

    Args:
        names: Paths or catalog names.
        spark: The session; by default the active one, or a new one.

    Returns:
        The ``version`` of each.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is none of them.
    """
    _check_one_is_there(names)
    engine = open_engine(spark, Needs("lakemill", writes=tuple(names)))
    return {name: engine.vacuum(name) for name in _there(engine, names)}


def _check_one_is_there(names: Sequence[str]) -> None:
    """Refuse a list of tables of which none can be there, before an engine starts."""
    missing: TableError | None = None
    for name in names:
        try:
            table_names.check_path(name)
        except TableError as error:
            missing = missing or error
        else:
            return
    if missing is not None:
        raise missing


def _there(engine: Engine, names: Sequence[str]) -> list[str]:
    there = [name for name in names if engine.snapshot(name) is not None]
    if not there:
        opened(engine, names[0])
    return there
