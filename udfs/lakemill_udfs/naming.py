"""Names of columns that Spark does not take: batches come named by their place, and get their names in the worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa


def with_names(names: Sequence[str], function: Any, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Call a function with the same batches under these names.

    Args:
        names: In the columns' order; they may hold dots.
        function: From an iterator of record batches to one.
        batches: The rows.
    """
    yield from function(batch.rename_columns(list(names)) for batch in batches)
