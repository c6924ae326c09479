"""Writes that another job's commit got in the way of: Delta refuses them, and they are done again."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from lakemill.engines.spark.errors import SPARK_FAILURES, spark_text
from lakemill_udfs.errors import RunError

logger = logging.getLogger(__name__)

CONFLICT = re.compile(r"\[(DELTA_(?:CONCURRENT_[A-Z_]+|METADATA_CHANGED|PROTOCOL_CHANGED)[A-Z_.]*)\]")
ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.2

Result = TypeVar("Result")


def retry_conflicts(write: Callable[[], Result], table: str) -> Result:
    """Do a Delta write again, on the table as it then is, while other commits conflict with it.

    Args:
        write: Makes one commit or none. With a transaction id, a write that a twin of this run made first is skipped
            at the next attempt.
        table: Where to, for the messages.

    Returns:
        What ``write`` returns.

    Raises:
        RunError: ``COMMIT_CONFLICT`` after ``ATTEMPTS`` attempts; nothing was written.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return write()
        except SPARK_FAILURES as error:
            conflict = CONFLICT.search(spark_text(error))
            if conflict is None:
                raise
            if attempt == ATTEMPTS:
                raise RunError(
                    "COMMIT_CONFLICT",
                    f"other jobs changed '{table}' in all {ATTEMPTS} attempts to write to it ({conflict[1]}).",
                    hint="run it again: nothing of this batch was written. OPTIMIZE and DELETE conflict most.",
                ) from error
            wait_seconds = FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 -- no secret
            logger.warning(
                "'%s' was changed by another job (%s); writing again in %.1f s", table, conflict[1], wait_seconds
            )
            time.sleep(wait_seconds)
    raise AssertionError("unreachable")
