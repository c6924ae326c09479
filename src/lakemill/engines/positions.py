"""Positions in a Delta source, as Delta's own stream writes them into a checkpoint's offsets."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

WHOLE_VERSION = -1
"""An ``index`` that stands before the first file of its version: all earlier versions are done."""


@dataclass(frozen=True, order=True)
class Position:
    """How far a source is done.

    Args:
        version: Of the table.
        index: Last file of that version that is done, counted from 0; ``WHOLE_VERSION`` where none is.
        is_snapshot: Whether the files are those of the whole table at ``version``, oldest first, then by path; else
            those that the commit ``version`` added, in the order of its log.
    """

    version: int
    index: int = WHOLE_VERSION
    is_snapshot: bool = False

    @classmethod
    def read(cls, text: str) -> Position:
        """Return the position of a file of ``offsets/``."""
        offset: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return cls(int(offset["reservoirVersion"]), int(offset["index"]), bool(offset["isStartingVersion"]))

    def offsets(self, table_id: str, before: str | None = None) -> str:
        """Return a file of ``offsets/`` that Structured Streaming goes on from.

        Args:
            table_id: Delta's id of the source.
            before: The file of the batch before, whose settings are kept: Spark takes other ones for a repartition.
        """
        conf = SETTINGS | (json.loads(before.strip().splitlines()[1])["conf"] if before is not None else {})
        head = {"batchWatermarkMs": 0, "batchTimestampMs": int(time.time() * 1000), "conf": conf}
        end = {
            "sourceVersion": 1,
            "reservoirId": table_id,
            "reservoirVersion": self.version,
            "index": self.index,
            "isStartingVersion": self.is_snapshot,
        }
        return "\n".join(["v1", *(json.dumps(part, separators=(",", ":")) for part in (head, end))])


SETTINGS = {"spark.sql.shuffle.partitions": "16"}
"""What Spark wants to know of a batch that it ends for us; a batch is about a gigabyte at most, and so is its MERGE."""

COMMITTED = 'v1\n{"nextBatchWatermarkMs":0}'
"""A file of ``commits/``."""
