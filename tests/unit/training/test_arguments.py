"""petastorm's arguments: each is taken as it means, or refused with what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lakemill.training.arguments import NOT_TAKEN, reader_arguments
from lakemill.training.converter import make_spark_converter
from lakemill.training.transform_spec import TransformSpec
from lakemill_udfs.errors import ConfigError
from tests.unit.training.training_tables import write_examples

PETASTORM = [
    "schema_fields",
    "reader_pool_type",
    "results_queue_size",
    "seed",
    "shuffle_rows",
    "shuffle_row_groups",
    "shuffle_row_drop_partitions",
    "predicate",
    "rowgroup_selector",
    "cur_shard",
    "shard_count",
    "shard_seed",
    "cache_type",
    "cache_location",
    "cache_size_limit",
    "cache_row_size_estimate",
    "cache_extra_settings",
    "hdfs_driver",
    "transform_spec",
    "filters",
    "storage_options",
    "zmq_copy_buffers",
    "filesystem",
    "convert_early_to_numpy",
    "batch_size",
    "num_epochs",
    "workers_count",
    "shuffling_queue_capacity",
    "data_loader_fn",
]
"""The arguments of its make_batch_reader, make_torch_dataloader and make_tf_dataset, but for tf's own ``prefetch``."""


def test_every_argument_of_petastorm_is_known() -> None:
    from lakemill.training.arguments import ReaderArguments

    assert set(PETASTORM) <= {*ReaderArguments.__dataclass_fields__, *NOT_TAKEN}
    reader_arguments({name: default for name, (default, _) in NOT_TAKEN.items()})


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_is_not_taken_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[TRAINING_ARGUMENT\] petastorm's '{name}'.*Hint: ."):
        reader_arguments({name: object()})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shufle_rows": True}, "did you mean 'shuffle_rows'"),
        ({"batch_size": 0}, "'batch_size' is a whole number from 1"),
        ({"seed": -1}, "'seed'"),
        ({"cur_shard": 1}, "together"),
        ({"cur_shard": 2, "shard_count": 2}, "'cur_shard' is 0 to 1"),
        ({"last": "lose"}, "keep, drop, pad"),
        ({"ragged": "cut"}, "error, pad, list"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[TRAINING_ARGUMENT\]") as raised:
        reader_arguments(given)
    assert said in str(raised.value)


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("HOROVOD_RANK", "HOROVOD_SIZE")])
def test_a_shard_that_is_not_the_rank_s_is_refused(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    rank, size = names
    monkeypatch.setenv(rank, "1")
    monkeypatch.setenv(size, "2")
    assert reader_arguments({"cur_shard": 1, "shard_count": 2}).order.shard == 1
    with pytest.raises(ConfigError, match=r"^\[TRAINING_RANK\]"):
        reader_arguments({"cur_shard": 0, "shard_count": 2})


@pytest.mark.parametrize("filters", [[("number", "like", 1)], [("number", "<")], [["number"]], [("number", "=", b"")]])
def test_filters_that_are_none_are_refused(tmp_path: Path, filters: list[Any]) -> None:
    converter = make_spark_converter(write_examples(tmp_path / "examples", 10, 1))
    with pytest.raises(ConfigError, match=r"^\[TRAINING_ARGUMENT\] 'filters'"):
        converter.make_loader(schema_fields=["number"], filters=filters)


def test_arguments_of_a_copy_are_refused_for_a_table(tmp_path: Path) -> None:
    table = write_examples(tmp_path / "examples", 10, 1)
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        make_spark_converter(table, parquet_row_group_size_bytes=2**20)
    with pytest.raises(ConfigError, match="TRAINING_ARGUMENT"):
        make_spark_converter(table, dtype="float16")


def test_a_transform_s_fields_are_checked() -> None:
    with pytest.raises(ConfigError, match="TRAINING_TRANSFORM"):
        TransformSpec(removed_fields=["a"], selected_fields=["b"])
    with pytest.raises(ConfigError, match="TRAINING_TRANSFORM"):
        TransformSpec(edit_fields=[("a", "no dtype", (), False)])
    with pytest.raises(ConfigError, match="TRAINING_FIELD"):
        TransformSpec(selected_fields=["b"]).names(["a"])
