"""How a worker's error reaches the driver through Spark, which passes on nothing but its text.

What a worker runs is wrapped: an error of Lakemill leaves it as one line with the driver's mark, a secret of that
process, and any other as its class and place in the code. So no row's text leaves a worker with an error, whatever a
cluster logs, and no row's text, in whatever error of Spark's it stands, is taken for an error of Lakemill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from lakemill_udfs.failures import worker_failure


class WorkerError(Exception):
    """An error of a worker, as text.

    Args:
        error: What the worker raised.
        mark: Of the driver that asked for the work.
    """

    def __init__(self, error: Exception, mark: str) -> None:
        ours = worker_failure(error)
        super().__init__(f"{ours} ({type(ours).__name__} {mark})")


def each(
    mark: str, function: Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]], batches: Iterable[Any]
) -> Iterator[pa.RecordBatch]:
    """Yield what a function makes of record batches, for ``mapInArrow``.

    Raises:
        WorkerError: the function raised.
    """
    try:
        yield from function(batches)
    except Exception as error:  # whatever it is, its text stays here
        raise WorkerError(error, mark) from None


def whole(mark, function, group):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- Spark reads hints, and fails on a partial's
    """Return what a function makes of a group, for ``applyInArrow`` and ``applyInPandas``.

    Raises:
        WorkerError: the function raised.
    """
    try:
        return function(group)
    except Exception as error:  # as above
        raise WorkerError(error, mark) from None
