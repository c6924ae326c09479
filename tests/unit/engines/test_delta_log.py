"""What a table's log says without an engine: its newest version, and what the table is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.engines.delta_log import DeltaLog


@pytest.mark.parametrize("has_checkpoint", [False, True])
@pytest.mark.parametrize("commits_after", [0, 2])
def test_the_log_says_what_the_table_is(tmp_path: Path, has_checkpoint: bool, commits_after: int) -> None:
    rows = pa.table({"id": [1], "day": ["monday"]})
    write_deltalake(tmp_path, rows, partition_by=["day"], configuration={"delta.appendOnly": "true"})
    write_deltalake(tmp_path, rows, mode="append")
    if has_checkpoint:
        DeltaTable(tmp_path).create_checkpoint()
        (tmp_path / "_delta_log" / f"{0:020d}.json").unlink()  # as a clean-up does
    for _ in range(commits_after):
        write_deltalake(tmp_path, rows, mode="append")
    log, table = DeltaLog(str(tmp_path)), DeltaTable(tmp_path)
    said = log.metadata()
    assert log.newest() == table.version() == 1 + commits_after
    assert said is not None
    assert said["id"] == str(table.metadata().id)
    assert said["partitionColumns"] == ["day"]
    assert said["configuration"] == {"delta.appendOnly": "true"}


def test_the_newest_metadata_counts(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"id": [1]}))
    table = DeltaTable(tmp_path)
    table.create_checkpoint()
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})
    said = DeltaLog(str(tmp_path)).metadata()
    assert said is not None
    assert said["configuration"] == {"delta.logRetentionDuration": "interval 1 days"}


def test_a_folder_without_a_log_has_no_version(tmp_path: Path) -> None:
    assert (DeltaLog(str(tmp_path)).newest(), DeltaLog(str(tmp_path)).metadata()) == (None, None)


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_the_log_says_how_large_the_table_is(tmp_path: Path, has_checkpoint: bool) -> None:
    for start in range(3):
        write_deltalake(tmp_path, pa.table({"id": [start], "text": ["a" * start]}), mode="append")
    if has_checkpoint:
        DeltaTable(tmp_path).create_checkpoint()
    DeltaTable(tmp_path).delete("id = 1")
    write_deltalake(tmp_path, pa.table({"id": [9], "text": ["b"]}), mode="append")
    log = DeltaLog(str(tmp_path))
    for version in (3, 4) if has_checkpoint else (0, 2, 3, 4):
        files = DeltaTable(tmp_path, version=version).file_uris()
        assert log.size(version) == (len(files), sum(Path(file).stat().st_size for file in files)), version
    assert log.size(5) is None
