"""What Delta works out of a table before it writes to it with a transaction, asked for while something else goes on.

To look a transaction's id up, a write needs the whole state of the table as it is, most of a second's work for Delta
even if the table is empty. Asked for before, it is there when the rows are.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lakemill.engines.spark import tables
from lakemill.engines.spark.errors import SPARK_FAILURES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def look_ahead(spark: SparkSession, table: str) -> None:
    """Let Delta work out a table's state in a thread of its own; if that fails, the write says why.

    Args:
        spark: The session.
        table: Path or catalog name.
    """
    # No end waits for it: what it learns is of use to this process alone.
    threading.Thread(target=_learn, args=(spark, table), name="lakemill-look-ahead", daemon=True).start()


def _learn(spark: SparkSession, table: str) -> None:
    with suppress(*SPARK_FAILURES):
        tables.detail(spark, table)
