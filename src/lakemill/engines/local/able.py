"""What of a job this engine cannot do, found before anything runs: tables, their features, the predicate."""

from __future__ import annotations

from lakemill.engines import table_names
from lakemill.engines.local.features import unsupported
from lakemill.engines.local.predicates import Predicate
from lakemill.engines.local.result_columns import declared_columns
from lakemill.engines.local.tables import Snapshot, open_table
from lakemill.engines.needs import Needs
from lakemill_udfs.errors import LakemillError


def missing(needs: Needs) -> LakemillError | None:
    """Return why this engine cannot do a job, as ``ENGINE_LOCAL``; None if it can, or if no engine could.

    Args:
        needs: Of the job.
    """
    try:
        _check(needs)
    except LakemillError as error:
        return error if error.code == "ENGINE_LOCAL" else None  # the run says what is wrong on every engine
    return None


def open_by_path(table: str, version: int | str | None = None) -> Snapshot | None:
    """Return a table; None if there is none.

    Raises:
        SetupError: ``ENGINE_LOCAL`` for a catalog's name, or a table that would be read wrong.
        TableError: ``TABLE_VERSION``.
    """
    if not table_names.is_path(table):
        raise unsupported(
            f"the local engine opens tables by path or URI, not by a catalog's name: '{table}'.",
            "give a path with a slash; or engine: {name: spark}.",
        )
    return open_table(table_names.location(table), version)


def _check(needs: Needs) -> None:
    read = [open_by_path(table, None if number else needs.version) for number, table in enumerate(needs.reads)]
    for table in needs.writes:
        if (snapshot := open_by_path(table)) is not None:
            snapshot.check_writable()
    if needs.where is not None and read and read[0] is not None:
        Predicate.read(needs.where, read[0].schema)
    if needs.columns is not None:
        declared_columns(needs.columns)
