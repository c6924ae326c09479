"""The arguments of petastorm's reader: those that mean something here, and an error for each other, never silence."""

from __future__ import annotations

import datetime as dt
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lakemill.engines.sql import quoted, sql_text
from lakemill.training.epochs import Last, Order
from lakemill.training.fields import Ragged
from lakemill.training.transform_spec import TransformSpec
from lakemill_udfs.errors import ConfigError

NOT_TAKEN: dict[str, tuple[Any, str]] = {
    "shuffle_row_drop_partitions": (1, "shuffling_queue_capacity=... mixes rows of several row groups"),
    "predicate": (None, "filters=[...], or where=... of make_spark_converter, in SQL"),
    "rowgroup_selector": (None, "filters=[...] reads only the files that can hold such rows"),
    "cache_type": ("null", "files are read where they are; there is no cache"),
    "cache_location": (None, "files are read where they are; there is no cache"),
    "cache_size_limit": (None, "files are read where they are; there is no cache"),
    "cache_row_size_estimate": (None, "files are read where they are; there is no cache"),
    "cache_extra_settings": (None, "files are read where they are; there is no cache"),
    "hdfs_driver": ("libhdfs3", "Arrow reads hdfs:// with Hadoop's own library"),
    "storage_options": (None, "a store's credentials come from the environment"),
    "zmq_copy_buffers": (True, "processes are not fed by ZeroMQ"),
    "filesystem": (None, "the table's path or URI says where it is"),
    "convert_early_to_numpy": (False, "columns become arrays without pandas in any case"),
    "data_loader_fn": (None, "wrap the loader: it is an iterable of dicts of tensors"),
}
"""Arguments of petastorm's that are taken with their default only, and what to do instead."""

RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("HOROVOD_RANK", "HOROVOD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
"""Variables by which launchers tell a process its rank, and how many there are."""

ROWS_AHEAD = 2
"""Batches ready or on the way for each worker."""

PoolType = Literal["thread", "process"]
"""What decodes and transforms: threads, or processes for functions that hold Python's lock."""

OPERATORS = {"=": "=", "==": "=", "!=": "<>", "<": "<", ">": ">", "<=": "<=", ">=": ">="}


@dataclass(frozen=True)
class ReaderArguments:
    """What a loader is asked for, under petastorm's names; each default is as in ``docs/coming-from-petastorm.md``."""

    batch_size: int | None = None
    num_epochs: int | None = 1
    workers_count: int | None = None
    shuffling_queue_capacity: int | None = None
    results_queue_size: int | None = None
    reader_pool_type: PoolType = "thread"
    schema_fields: Sequence[str] | None = None
    seed: int | None = None
    shuffle_rows: bool = False
    shuffle_row_groups: bool = True
    cur_shard: int | None = None
    shard_count: int | None = None
    shard_seed: int | None = None
    transform_spec: TransformSpec | None = None
    filters: Sequence[Any] | None = None
    last: Last = "keep"
    ragged: Ragged = "error"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers_count", 1), ("results_queue_size", 1), ("num_epochs", 1)):
            _check_number(name, getattr(self, name), least)
        for name in ("shuffling_queue_capacity", "seed", "shard_seed", "cur_shard"):
            _check_number(name, getattr(self, name), 0)
        for name, kind in (("last", Last), ("ragged", Ragged), ("reader_pool_type", PoolType)):
            allowed = get_args(kind)
            if getattr(self, name) not in allowed:
                raise _wrong(f"'{name}' is one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        check_shard(self.cur_shard, self.shard_count)

    @property
    def workers(self) -> int:
        """Threads or processes that read and decode."""
        return self.workers_count or 4

    @property
    def ahead(self) -> int:
        """Batches that are ready or on the way."""
        return self.results_queue_size or ROWS_AHEAD * self.workers

    @property
    def order(self) -> Order:
        """In which order rows come, and which of them."""
        return Order(
            self.batch_size or 32,
            self.cur_shard or 0,
            self.shard_count or 1,
            self.seed or 0,
            self.shard_seed,
            self.shuffle_row_groups,
            self.shuffle_rows,
            self.shuffling_queue_capacity or 0,
            self.last,
        )


def reader_arguments(given: Mapping[str, Any]) -> ReaderArguments:
    """Return a loader's arguments, checked.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT`` for one that is unknown, wrong or not taken here, ``TRAINING_RANK`` if
            the shard is not the one that the process's rank says.
    """
    taken = {}
    for name, value in given.items():
        if name in NOT_TAKEN:
            default, instead = NOT_TAKEN[name]
            if value != default:
                raise _wrong(f"petastorm's '{name}' is not taken here; got {type(value).__name__}.", f"{instead}.")
        elif name in ReaderArguments.__dataclass_fields__:
            taken[name] = value
        else:
            known = [*ReaderArguments.__dataclass_fields__, *NOT_TAKEN]
            close = difflib.get_close_matches(name, known, 1)
            raise _wrong(f"there is no argument '{name}'.", f"did you mean '{close[0]}'?" if close else None)
    return ReaderArguments(**taken)


def check_shard(shard: int | None, shards: int | None) -> None:
    """Look whether a shard is one of those there are, and is that of this process's rank.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT``, ``TRAINING_RANK``.
    """
    if (shard is None) != (shards is None):
        raise _wrong("'cur_shard' and 'shard_count' are given together.")
    if shard is None or shards is None:
        return
    if not 0 <= shard < shards:
        raise _wrong(f"'cur_shard' is 0 to {shards - 1} for shard_count={shards}; got {shard}.")
    for rank, size in RANKS:
        if rank in os.environ and size in os.environ:
            said = os.environ[rank], os.environ[size]
            if said != (str(shard), str(shards)):
                raise ConfigError(
                    "TRAINING_RANK",
                    f"cur_shard={shard}, shard_count={shards}, but here {rank}={said[0]} and {size}={said[1]}.",
                    hint="each rank reads the shard of its own number, or rows are lost and doubled.",
                )


def filter_sql(filters: Sequence[Any]) -> str:
    """Return pyarrow's filters as SQL.

    Args:
        filters: Tuples ``(column, operator, value)``, which all hold, or lists of such tuples, of which one holds.

    Raises:
        ConfigError: ``TRAINING_ARGUMENT`` for anything else.
    """
    ors = [filters] if filters and isinstance(filters[0], tuple) else filters
    return " OR ".join("(" + " AND ".join(_condition(one) for one in ands) + ")" for ands in ors)


def _condition(condition: Any) -> str:
    try:
        column, operator, value = condition
        name = quoted(column)
        if operator in ("in", "not in"):
            return f"{name} {operator.upper()} ({', '.join(map(_literal, value))})"
        return f"{name} {OPERATORS[operator]} {_literal(value)}"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _wrong(
            "'filters' holds tuples (column, operator, value).",
            f"the operators are {', '.join(OPERATORS)}, in, not in; values are numbers, strings, booleans and dates.",
        ) from error


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return sql_text(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return f"DATE '{value.isoformat()}'"
    raise TypeError(type(value).__name__)


def _check_number(name: str, value: Any, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise _wrong(f"'{name}' is a whole number from {least}; got {value!r}.")


def _wrong(message: str, hint: str | None = None) -> ConfigError:
    return ConfigError("TRAINING_ARGUMENT", message, hint=hint)
