"""Which rows each shard gets in which batch of an epoch: numbers only, no table and no framework.

An epoch is the table's blocks (ranges of rows that are read together), in a shuffled order that all shards work out
alike. Shard ``s`` of ``k`` takes the rows from ``s * n // k`` to ``(s + 1) * n // k`` of it, so that every row is in
just one shard and shards differ by one row at most. All shards have the same number of batches: one that had more
would wait for the others for ever in the exchange of gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lakemill_udfs.errors import ConfigError

Last = Literal["keep", "drop", "pad"]
"""What becomes of rows that fill no batch: a smaller last batch, none, or one filled up with rows of the same shard."""

BLOCKS, ROWS = 0, 1
"""What random numbers are drawn for, so that one seed gives independent orders."""


@dataclass(frozen=True)
class Order:
    """How epochs are ordered and divided.

    Args:
        batch_rows: Rows of one batch.
        shard: This shard's number, from 0.
        shards: How many there are.
        seed: Of every order; with the same seed an epoch is the same again.
        shard_seed: Of the blocks' order, which shards must agree on; None is ``seed``.
        shuffle_blocks: Whether blocks come in another order in each epoch.
        shuffle_rows: Whether a block's rows do.
        window_rows: Rows of several blocks that are shuffled together, at least; 0 shuffles none across blocks.
        last: What becomes of rows that fill no batch.
    """

    batch_rows: int
    shard: int = 0
    shards: int = 1
    seed: int = 0
    shard_seed: int | None = None
    shuffle_blocks: bool = True
    shuffle_rows: bool = False
    window_rows: int = 0
    last: Last = "keep"


@dataclass(frozen=True)
class Segment:
    """Rows ``start`` to ``stop`` of a block."""

    block: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class Window:
    """Rows that are in memory together.

    Args:
        segments: What is read.
        order: Places in the segments' rows, one after the other, in the order in which they are given out.
    """

    segments: tuple[Segment, ...]
    order: NDArray[np.int64]


@dataclass(frozen=True)
class Epochs:
    """The epochs of one shard.

    Args:
        blocks: Rows of each block.
        order: How they are ordered and divided.

    Raises:
        ConfigError: ``TRAINING_SHARDS`` if a shard would have no batch, ``TRAINING_BATCHES`` if shards cannot have the
            same number of batches with each row once.
    """

    blocks: tuple[int, ...]
    order: Order

    def __post_init__(self) -> None:
        rows, shards, size = sum(self.blocks), self.order.shards, self.order.batch_rows
        least = rows // shards
        if least < (size if self.order.last == "drop" else 1):
            raise ConfigError(
                "TRAINING_SHARDS",
                f"{rows} rows in {shards} shards of at least one batch of {size}: a shard would have no batch.",
                hint="use fewer shards, a smaller batch_size, or last='keep'.",
            )
        if self.order.last == "keep" and least < self._most_batches:
            raise ConfigError(
                "TRAINING_BATCHES",
                f"{rows} rows in {shards} shards do not make the same number of batches of {size} row in each.",
                hint="last='pad' repeats rows, last='drop' leaves some out; a larger batch_size needs neither.",
            )

    @property
    def _most_batches(self) -> int:
        most = -(-sum(self.blocks) // self.order.shards)
        return -(-most // self.order.batch_rows)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Rows of each batch of an epoch; every shard has as many batches."""
        size, count = self.order.batch_rows, self._most_batches
        if self.order.last == "drop":
            return (size,) * (sum(self.blocks) // self.order.shards // size)
        if self.order.last == "pad":
            return (size,) * count
        rows = self._end - self._start
        last = max(1, rows - size * (count - 1))  # a shard that is one row short takes it from the batch before
        before = rows - last - size * max(0, count - 2)
        return (*(size,) * (count - 2), *((before,) if count > 1 else ()), last)

    @property
    def _start(self) -> int:
        return self.order.shard * sum(self.blocks) // self.order.shards

    @property
    def _end(self) -> int:
        return (self.order.shard + 1) * sum(self.blocks) // self.order.shards

    def windows(self, epoch: int, skip: int = 0) -> Iterator[Window]:
        """Yield what is read of an epoch, in order.

        Args:
            epoch: Its number, from 0.
            skip: Rows at its start that are left out, as they were given out before.
        """
        shuffles = self.order.shuffle_rows or self.order.window_rows > 1
        for number, segments in enumerate(self._grouped(self._segments(epoch))):
            places = np.arange(sum(segment.rows for segment in segments))
            if shuffles:
                self._random(ROWS, self.order.seed, epoch, self.order.shard, number).shuffle(places)
            if skip < len(places):
                yield Window(segments, places[skip:])
            skip = max(0, skip - len(places))

    def _grouped(self, segments: Iterator[Segment]) -> Iterator[tuple[Segment, ...]]:
        window: list[Segment] = []
        rows = 0
        for segment in segments:
            window.append(segment)
            rows += segment.rows
            if rows >= self.order.window_rows:
                yield tuple(window)
                window, rows = [], 0
        if window:
            yield tuple(window)

    def _segments(self, epoch: int) -> Iterator[Segment]:
        """Yield this shard's rows, cut off or begun anew where batches need fewer or more than it has."""
        own = list(self._own(epoch))
        left = sum(self.batches)
        while left:
            for segment in own:
                taken = min(segment.rows, left)
                if taken:
                    yield Segment(segment.block, segment.start, segment.start + taken)
                left -= taken

    def _own(self, epoch: int) -> Iterator[Segment]:
        numbers = np.arange(len(self.blocks))
        if self.order.shuffle_blocks:
            seed = self.order.seed if self.order.shard_seed is None else self.order.shard_seed
            self._random(BLOCKS, seed, epoch).shuffle(numbers)
        ends = accumulate(self.blocks[number] for number in numbers)
        for number, end in zip(numbers.tolist(), ends, strict=True):
            first = end - self.blocks[number]
            start, stop = max(self._start, first), min(self._end, end)
            if start < stop:
                yield Segment(number, start - first, stop - first)

    @staticmethod
    def _random(*numbers: int) -> np.random.Generator:
        return np.random.default_rng(numbers)
