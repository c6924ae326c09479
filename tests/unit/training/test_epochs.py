"""Every row exactly once an epoch, in as many batches for each shard, whatever the sizes are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from lakemill.training.epochs import Epochs, Order, Window
from lakemill_udfs.errors import ConfigError

Row = tuple[int, int]
BLOCKS = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple)
ORDERS = st.builds(
    Order,
    batch_rows=st.integers(1, 50),
    shards=st.integers(1, 7),
    seed=st.integers(0, 3),
    shard_seed=st.none() | st.integers(0, 3),
    shuffle_blocks=st.booleans(),
    shuffle_rows=st.booleans(),
    window_rows=st.integers(0, 100),
    last=st.sampled_from(["keep", "drop", "pad"]),
)


def rows_of(windows: list[Window]) -> list[Row]:
    """Return block and place of each row that windows give out, in order."""
    found: list[Row] = []
    for window in windows:
        rows = [(part.block, row) for part in window.segments for row in range(part.start, part.stop)]
        found += [rows[place] for place in window.order]
    return found


def shards(blocks: tuple[int, ...], order: Order) -> list[Epochs]:
    try:
        return [Epochs(blocks, replace(order, shard=shard)) for shard in range(order.shards)]
    except ConfigError:  # that these are the ones that cannot be shared is tested below
        reject()


@given(BLOCKS, ORDERS, st.integers(0, 3))
def test_all_shards_together_give_each_row_once_in_equally_many_batches(
    blocks: tuple[int, ...], order: Order, epoch: int
) -> None:
    made = shards(blocks, order)
    assert len({len(shard.batches) for shard in made}) == 1
    rows = [rows_of(list(shard.windows(epoch))) for shard in made]
    assert [len(one) for one in rows] == [sum(shard.batches) for shard in made]
    assert all(1 <= size <= order.batch_rows for shard in made for size in shard.batches)
    table = {(block, row) for block, count in enumerate(blocks) for row in range(count)}
    counts = Counter(row for one in rows for row in one)
    assert set(counts) <= table
    if order.last != "drop":
        assert set(counts) == table, "a row is lost"
    if order.last != "pad":
        assert max(counts.values()) == 1, "a row is doubled"
    if order.last == "keep":
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
    else:
        assert {size for shard in made for size in shard.batches} == {order.batch_rows}


@given(BLOCKS, ORDERS, st.integers(0, 3), st.data())
def test_an_epoch_goes_on_anywhere_as_if_it_had_not_stopped(
    blocks: tuple[int, ...], order: Order, epoch: int, data: st.DataObject
) -> None:
    shard = shards(blocks, order)[data.draw(st.integers(0, order.shards - 1))]
    whole = rows_of(list(shard.windows(epoch)))
    done = data.draw(st.integers(0, len(whole)))
    assert rows_of(list(shard.windows(epoch, done))) == whole[done:]
    assert rows_of(list(shard.windows(epoch))) == whole


def test_epochs_and_seeds_have_orders_of_their_own_and_repeat_them() -> None:
    order = Order(8, shuffle_rows=True, window_rows=64)
    orders = {
        (seed, epoch): rows_of(list(Epochs((16,) * 8, replace(order, seed=seed)).windows(epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(rows) for rows in orders.values()}) == 4
    assert rows_of(list(Epochs((16,) * 8, order).windows(1))) == orders[0, 1]


def test_a_window_mixes_the_rows_of_its_blocks() -> None:
    rows = rows_of(list(Epochs((10,) * 10, Order(10, window_rows=100)).windows(0)))
    assert min(len({block for block, _ in rows[start : start + 10]}) for start in range(0, 100, 10)) >= 4


def test_without_shuffling_rows_come_in_the_table_s_order() -> None:
    order = Order(3, shuffle_blocks=False)
    assert rows_of(list(Epochs((2, 3), order).windows(5))) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


@given(BLOCKS, ORDERS)
def test_only_what_cannot_be_shared_equally_is_refused(blocks: tuple[int, ...], order: Order) -> None:
    rows = sum(blocks)
    least, uneven = rows // order.shards, rows % order.shards > 0
    possible = {
        "drop": least >= order.batch_rows,
        "pad": least >= 1,
        "keep": least >= 1 and not (order.batch_rows == 1 and uneven),
    }
    try:
        Epochs(blocks, order)
    except ConfigError:
        assert not possible[order.last]
    else:
        assert possible[order.last]


@pytest.mark.parametrize(
    ("blocks", "order", "code"),
    [
        ((3,), Order(1, shards=4), "TRAINING_SHARDS"),
        ((), Order(1), "TRAINING_SHARDS"),
        ((7,), Order(4, shards=2, last="drop"), "TRAINING_SHARDS"),
        ((3,), Order(1, shards=2), "TRAINING_BATCHES"),
    ],
)
def test_what_cannot_be_shared_equally_is_an_error(blocks: tuple[int, ...], order: Order, code: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[{code}\]"):
        Epochs(blocks, order)
