"""What a job needs of an engine, as far as it is known before one is opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a job needs of the engine that it runs on.

    Args:
        job: Its name.
        reads: Tables that it reads.
        writes: Tables that it writes; those that are not there yet are made.
        where: SQL predicate on the first of ``reads``.
        version: Version or timestamp at which that one is read.
        columns: Columns of a result, as SQL declares them.
    """

    job: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    where: str | None = None
    version: int | str | None = None
    columns: str | None = None
