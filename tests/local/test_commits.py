"""Commits on a table: one version each, with the job's transaction, on the state that the rows were chosen from."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.engines.engine import Transaction
from lakemill.engines.local import commits
from lakemill.engines.local.tables import Snapshot, open_table
from lakemill.engines.local.writing import FileWriter, WrittenFile
from lakemill_udfs.errors import ConfigError, RunError, TableError

TENSOR = {"lakemill.dtype": "float32", "lakemill.shape": "[2, 2]", "lakemill.format": "1"}
OUT = pa.struct([pa.field("x", pa.binary(), metadata=TENSOR), ("label", pa.string()), ("score", pa.float64())])
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("time", pa.timestamp("us", "UTC")),
        ("out", OUT),
        ("metadata", pa.struct([("job", pa.string()), ("batch_id", pa.int64())])),
    ]
)
NOW = dt.datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=dt.UTC)


def rows(ids: Sequence[int | None], job: str = "a", label: str = "x", batch_id: int = 0) -> pa.RecordBatch:
    data: dict[str, Any] = {
        "id": ids,
        "time": [NOW] * len(ids),
        "out": [{"x": np.arange(4, dtype=np.float32).tobytes(), "label": label, "score": 0.5}] * len(ids),
        "metadata": [{"job": job, "batch_id": batch_id}] * len(ids),
    }
    return pa.table(data, SCHEMA).combine_chunks().to_batches()[0] if ids else pa.RecordBatch.from_pylist([], SCHEMA)


def files(folder: str, *batches: pa.RecordBatch) -> list[WrittenFile]:
    written = []
    for batch in batches:
        with FileWriter(folder, SCHEMA) as writer:
            writer.write(batch)
        written += [writer.written] if writer.written else []
    return written


@pytest.fixture
def table(tmp_path: Path) -> Snapshot:
    return commits.create(str(tmp_path / "a table"), SCHEMA)


def again(snapshot: Snapshot) -> Snapshot:
    newest = open_table(snapshot.location)
    assert newest is not None
    return newest


def contents(snapshot: Snapshot) -> list[tuple[Any, str, str]]:
    """Return id, job and label of each row."""
    found = DeltaTable(snapshot.location).to_pyarrow_table().to_pylist()
    return sorted(((row["id"], row["metadata"]["job"], row["out"]["label"]) for row in found), key=str)


def job(version: int, app_id: str = "job") -> Transaction:
    return Transaction(app_id, version)


def test_a_made_table_keeps_its_columns_metadata(table: Snapshot) -> None:
    assert table.version == 0
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert commits.create(table.location, SCHEMA).version == 0


def test_files_of_workers_are_added_in_one_commit(table: Snapshot) -> None:
    done = commits.append(table, files(table.location, rows([1, 2]), rows([]), rows([3])), job(0))
    assert done is not None
    assert (done.version, done.transaction_version("job")) == (1, 0)
    assert [row[0] for row in contents(table)] == [1, 2, 3]
    assert done.schema.equals(SCHEMA, check_metadata=True)
    assert len(done.files()) == 2


def test_statistics_are_of_small_columns_and_blobs_are_as_they_are(table: Snapshot) -> None:
    batch = rows([1, None, 7], label="é" * 40)
    (file,) = files(table.location, batch)
    bounds = json.loads(file.statistics)
    assert bounds["numRecords"] == 3
    assert bounds["nullCount"] == {
        "id": 1,
        "time": 0,
        "out": {"label": 0, "score": 0},
        "metadata": {"job": 0, "batch_id": 0},
    }
    assert bounds["minValues"] == {"id": 1, "out": {"label": "é" * 32}, "metadata": {"job": "a", "batch_id": 0}}
    assert bounds["maxValues"] == {
        "id": 7,
        "metadata": {"job": "a", "batch_id": 0},
    }  # no cut text is a bound from above
    group = pq.read_metadata(file.path).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["out.x"].compression == "UNCOMPRESSED"
    assert columns["out.x"].statistics is None
    assert columns["out.x"].encodings == ("PLAIN", "RLE") or "RLE_DICTIONARY" not in columns["out.x"].encodings
    assert columns["out.label"].compression == "SNAPPY"
    assert "RLE_DICTIONARY" in columns["out.label"].encodings
    assert "RLE_DICTIONARY" not in columns["out.score"].encodings  # floats seldom repeat


def test_the_table_is_pruned_by_our_statistics(table: Snapshot) -> None:
    from lakemill.engines.local.predicates import Predicate

    done = commits.append(table, files(table.location, rows([1, 2]), rows([3], job="b")), job(0))
    assert done is not None
    for where, count in (("id > 2", 1), ("metadata.job = 'a'", 1), ("out.label = 'x'", 2), ("id > 3", 0)):
        assert len(done.files(Predicate.read(where, SCHEMA))) == count


@pytest.mark.parametrize("how", ["append", "replace", "merge", "delete"])
def test_a_transaction_that_is_there_is_not_made_again(table: Snapshot, how: str) -> None:
    commits.append(table, files(table.location, rows([1])), job(5))
    newest = again(table)
    new = files(table.location, rows([2]))
    attempts: dict[str, Callable[[Transaction], Snapshot | int | None]] = {
        "append": lambda transaction: commits.append(newest, new, transaction),
        "replace": lambda transaction: commits.replace(newest, new, "metadata.job = 'a'", transaction),
        "merge": lambda transaction: commits.merge(newest, new, ["id"], "metadata.job = 'a'", transaction),
        "delete": lambda transaction: commits.delete(newest, "id = 1", transaction) or None,
    }
    assert attempts[how](job(5)) is None
    assert attempts[how](job(4)) is None
    assert [row[0] for row in contents(table)] == [1]
    assert again(table).version == newest.version
    made = attempts[how](job(6))
    assert made
    assert (again(table).version, again(table).transaction_version("job")) == (newest.version + 1, 6)


@pytest.mark.parametrize("how", ["append", "replace", "merge", "delete"])
def test_two_of_one_job_on_one_state_cannot_both_land(table: Snapshot, how: str) -> None:
    commits.append(table, files(table.location, rows([1])), job(0))
    state = again(table)
    commits.append(state, files(table.location, rows([2])), job(1))
    new = files(table.location, rows([3]))
    attempts: dict[str, Callable[[], object]] = {
        "append": lambda: commits.append(state, new, job(7)),
        "replace": lambda: commits.replace(state, new, "metadata.job = 'a'", job(7)),
        "merge": lambda: commits.merge(state, new, ["id"], "metadata.job = 'a'", job(7)),
        "delete": lambda: commits.delete(state, "metadata.job = 'a'", job(7)),
    }
    with pytest.raises(RunError, match="RUN_OVERTAKEN"):
        attempts[how]()
    assert [row[0] for row in contents(table)] == [1, 2]


def test_other_jobs_commits_do_not_stop_one(table: Snapshot) -> None:
    commits.append(table, files(table.location, rows([1]), rows([9], job="b")), job(0))
    state = again(table)
    commits.append(state, files(table.location, rows([2], job="b")), job(0, "other"))
    DeltaTable(table.location).optimize.compact()
    done = commits.replace(state, files(table.location, rows([5])), "metadata.job = 'a'", job(1))
    assert done is not None
    assert contents(table) == [(2, "b", "x"), (5, "a", "x"), (9, "b", "x")]


def test_replace_touches_the_rows_of_its_predicate_only(table: Snapshot, tmp_path: Path) -> None:
    commits.append(table, files(table.location, rows([1, 2]), rows([1], job="b")), job(0))
    new = files(str(tmp_path / "elsewhere"), rows([3], label="new"))
    done = commits.replace(again(table), new, "metadata.job = 'a'", job(1))
    assert done is not None
    assert contents(table) == [(1, "b", "x"), (3, "a", "new")]
    assert done.schema.equals(SCHEMA, check_metadata=True)
    assert commits.replace(done, [], "metadata.job = 'a'", job(2)) is not None
    assert contents(table) == [(1, "b", "x")]


def test_merge_by_key(table: Snapshot, tmp_path: Path) -> None:
    commits.append(table, files(table.location, rows([1, 2, None, 4, 6]), rows([1, 2], job="b")), job(0))
    new = files(str(tmp_path / "elsewhere"), rows([1, 5, None], label="new"))
    deleted = pa.table({"id": [2, 77]})
    own = "metadata.job = 'a'"
    done = commits.merge(again(table), new, ["id"], own, job(1), deleted=deleted, replaces="id = 6 OR id = 1")
    assert done is not None
    assert contents(table) == [
        (1, "a", "new"), (1, "b", "x"), (2, "b", "x"), (4, "a", "x"), (5, "a", "new"), (None, "a", "new"),
    ]  # fmt: skip
    assert done.schema.equals(SCHEMA, check_metadata=True)


def test_a_key_that_comes_twice_is_said(table: Snapshot) -> None:
    commits.append(table, files(table.location, rows([1])), job(0))
    with pytest.raises(TableError, match="KEY_NOT_UNIQUE"):
        commits.merge(again(table), files(table.location, rows([1, 1])), ["id"], "metadata.job = 'a'", job(1))


def test_changes_are_in_the_feed(tmp_path: Path) -> None:
    table = commits.create(str(tmp_path / "t"), SCHEMA, {"delta.enableChangeDataFeed": "true"})
    commits.append(table, files(table.location, rows([1, 2])), job(0))
    commits.merge(again(table), files(table.location, rows([1], label="new")), ["id"], "metadata.job = 'a'", job(1))
    feed = pa.table(DeltaTable(table.location).load_cdf(starting_version=2)).to_pylist()
    assert sorted((row["id"], row["_change_type"]) for row in feed) == [
        (1, "update_postimage"),
        (1, "update_preimage"),
    ]


def test_fields_that_a_new_model_has_are_added(table: Snapshot) -> None:
    commits.append(table, files(table.location, rows([1])), job(0))
    more = pa.struct([*OUT, pa.field("more", pa.float32(), metadata={"lakemill.dtype": "float16"})])
    wider = SCHEMA.set(SCHEMA.get_field_index("out"), pa.field("out", more))
    done = commits.add_fields(again(table), wider)
    assert done.schema.equals(wider, check_metadata=True)
    assert contents(table) == [(1, "a", "x")]


def test_a_partitioned_table_is_written_too(tmp_path: Path) -> None:
    location = str(tmp_path / "t")
    write_deltalake(location, pa.Table.from_batches([rows([1])]), partition_by=["id"])
    snapshot = open_table(location)
    assert snapshot is not None
    done = commits.append(snapshot, files(str(tmp_path / "elsewhere"), rows([2, None])), job(0))
    assert done is not None
    assert [row[0] for row in contents(done)] == [1, 2, None]


def test_a_predicate_that_the_other_engine_could_read_otherwise_deletes_nothing(table: Snapshot) -> None:
    with pytest.raises(ConfigError, match="ENGINE_LOCAL"):
        commits.delete(table, "rand() < 0.5", job(0))


def test_a_file_that_fails_half_way_is_removed(tmp_path: Path) -> None:
    def broken(folder: str, *, fails: bool) -> None:
        with FileWriter(folder, SCHEMA) as writer:
            writer.write(rows([1]))
            writer._flush()
            if fails:
                raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        broken(str(tmp_path), fails=True)
    assert not list(tmp_path.glob("*.parquet"))
    with pytest.raises(RunError, match="STORAGE_WRITE"):
        broken("/proc/nowhere", fails=False)
