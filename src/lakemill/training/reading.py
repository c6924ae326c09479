"""What a loader reads, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakemill.training.epochs import Order
from lakemill.training.fields import Arrays, Fields
from lakemill.training.snapshot import TrainingTable


@dataclass(frozen=True)
class Reading:
    """What a loader reads, and how.

    Args:
        table: The rows.
        fields: What is made of them.
        order: In which order, and which of them.
        epochs: Epochs of one iteration; None is without end.
        workers: Threads that read and decode.
        ahead: Batches that are ready or on the way, at most.
        finish: What becomes of a batch's arrays at last.
        in_processes: Whether processes decode and transform, instead of the threads that read.
    """

    table: TrainingTable
    fields: Fields
    order: Order
    epochs: int | None = 1
    workers: int = 4
    ahead: int = 8
    finish: Callable[[Arrays], Any] = dict
    in_processes: bool = False
