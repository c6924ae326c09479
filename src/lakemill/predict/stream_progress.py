"""What a stream says of each batch: its speed, how far behind it is, and how long rows took from commit to commit."""

from __future__ import annotations

import logging
import time
from collections import deque

import numpy as np

from lakemill.engines.delta_log import SourceCommit, SourceLog
from lakemill.predict.commits import Committed

logger = logging.getLogger(__name__)

KEPT_COMMITS = 1_000


class StreamProgress:
    """Measures a stream against its source's log.

    Args:
        log: Of the source.
    """

    def __init__(self, log: SourceLog) -> None:
        self.log = log
        self.latencies_seconds: deque[float] = deque(maxlen=KEPT_COMMITS)

    def line(self, batch: Committed, seconds: float, scored_before: int | None, scored: int) -> str:
        """Return the measures of a batch that was committed just now.

        Args:
            batch: What it came to.
            seconds: What it took.
            scored_before: Version of the source that the batch before it ended with; None for one of the first
                snapshot, whose commits are history and say nothing of latency.
            scored: Version of the source that it ended with.

        Returns:
            Rows a second; rows and seconds behind (a source filter is not counted in); the 50th and 99th percentile of
            the last 1,000 commits, from the source's commit to the target's.
        """
        now = time.time()
        text = f"{batch.rows / max(seconds, 1e-9):,.0f} rows/s"
        try:
            new = list(self.log.after(scored))
            done = list(self.log.after(scored_before))[: scored - scored_before] if scored_before is not None else []
        except OSError as error:
            logger.warning("the log of the source cannot be read, so its lag is unknown: %s", type(error).__name__)
            return text
        self.latencies_seconds += [now - commit.time_seconds for commit in done if commit.rows != 0]
        rows = "an unknown number of" if any(commit.rows is None for commit in new) else f"{_rows(new):,}"
        behind = max((now - commit.time_seconds for commit in new if commit.rows != 0), default=0.0)
        text += f", behind {rows} rows, {behind:.1f} s"
        if self.latencies_seconds:
            p50, p99 = np.percentile(self.latencies_seconds, [50, 99])
            text += f", commit to commit p50 {p50:.1f} s, p99 {p99:.1f} s"
        return text


def _rows(commits: list[SourceCommit]) -> int:
    return sum(commit.rows or 0 for commit in commits)
